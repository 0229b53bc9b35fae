// npm's oidc-provider as it is measured: one public client, refresh tokens that are rotated, signed access tokens for one
// resource with the algorithm of the other server. The person is signed in at once where an interaction is asked for, and an
// earlier consent is taken for granted, so that a flow is three requests here, too.
//
// `server.mjs PORT NODE_MODULES PROCESSES [STORE]`, where STORE is `postgres://…` or a file of SQLite; without it, the store in
// memory that it comes with.
import cluster from 'node:cluster';
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';

import { adapter, prepare } from './adapter.mjs';

const [, , port, modules, processes, place] = process.argv;

/** The module of the store. */
function kind() {
    return import(place.startsWith('postgres:') ? './postgres.mjs' : './sqlite.mjs');
}

async function serve(key, database) {
    const { Provider } = await import(createRequire(`${modules}/`).resolve('oidc-provider'));
    const resource = 'http://127.0.0.1:8/mcp';
    const provider = new Provider(`http://127.0.0.1:${port}`, {
        adapter: database && adapter(database),
        clients: [{
            client_id: 'editor',
            token_endpoint_auth_method: 'none',
            id_token_signed_response_alg: 'EdDSA',
            redirect_uris: ['http://127.0.0.1:9/callback'],
            grant_types: ['authorization_code', 'refresh_token'],
            response_types: ['code'],
        }],
        jwks: { keys: [{ ...key, kid: 'k1', alg: 'EdDSA', use: 'sig' }] },
        cookies: { keys: ['only for a measurement'] },
        features: {
            devInteractions: { enabled: false },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => resource,
                useGrantedResource: () => true,
                getResourceServerInfo: () => ({
                    scope: 'mcp', audience: resource, accessTokenTTL: 300, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'EdDSA' } },
                }),
            },
        },
        findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
        issueRefreshToken: () => true,
        rotateRefreshToken: () => true,
        // A client's tokens outlive the browser's session, as with the other server; so no request looks for it.
        expiresWithSession: () => false,
        interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
        // The grant that the session knows serves again, as by default; not in memory, where what belongs to a grant is one
        // list, and a long one is slow.
        loadExistingGrant: async (ctx) => {
            const { client: { clientId }, session } = ctx.oidc;
            const known = database && session.grantIdFor(clientId);
            if (known) return provider.Grant.find(known);
            const grant = new provider.Grant({ clientId, accountId: session.accountId });
            grant.addResourceScope(resource, 'mcp');
            await grant.save();
            return grant;
        },
        ttl: { Interaction: 600, Session: 3600, Grant: 86400, AuthorizationCode: 60, AccessToken: 300, RefreshToken: 86400 },
    });
    provider.use(async (ctx, next) => {
        if (!ctx.path.startsWith('/interaction/')) return next();
        await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: 'ann' }, consent: {} });
        ctx.respond = false;
    });
    provider.on('server_error', (_, error) => console.error(error));
    await new Promise((resolve) => { provider.listen(Number(port), '127.0.0.1', resolve); });
}

if (cluster.isPrimary) {
    const key = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
    const database = place && (await kind()).open(place, modules);
    if (database) await prepare(database, (await kind()).layout);
    if (Number(processes) > 1) {
        const workers = Array.from({ length: Number(processes) }, () => cluster.fork({ KEY: JSON.stringify(key) }));
        await Promise.all(workers.map((worker) => new Promise((resolve) => { worker.once('listening', resolve); })));
    } else {
        await serve(key, database);
    }
    console.log('ready');
} else {
    await serve(JSON.parse(process.env.KEY), place && (await kind()).open(place, modules));
}
