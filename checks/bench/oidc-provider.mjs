// npm's oidc-provider as it is measured: its store in memory, one public client, refresh tokens that are rotated, signed
// access tokens for one resource with the algorithm of the other server. The person is signed in at once where an
// interaction is asked for, and an earlier consent is taken for granted, so that a flow is three requests here, too.
import { generateKeyPairSync } from 'node:crypto';
import { createRequire } from 'node:module';

const [, , port, modules] = process.argv;
const { Provider } = await import(createRequire(`${modules}/`).resolve('oidc-provider'));
const issuer = `http://127.0.0.1:${port}`;
const resource = 'http://127.0.0.1:8/mcp';
const key = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
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
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    loadExistingGrant: async (ctx) => {
        const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
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
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
