// Where oidc-provider keeps what it must not forget: a table for each kind of record, found by its key and, where the
// provider asks so, by its grant, its session or its user code. A database has `read(text, values)`, which gives the first row,
// and `write(text, values)`, which is there when the disk has it; a statement has each value once and in order.

/** The kinds, with the fields that the provider looks for beside the key. */
const KINDS = {
    AccessToken: ['grantId'],
    AuthorizationCode: ['grantId'],
    BackchannelAuthenticationRequest: ['grantId'],
    Client: [],
    ClientCredentials: [],
    DeviceCode: ['grantId', 'userCode'],
    Grant: [],
    InitialAccessToken: [],
    Interaction: [],
    PreAuthorizedCode: ['grantId'],
    PushedAuthorizationRequest: [],
    RefreshToken: ['grantId'],
    RegistrationAccessToken: [],
    ReplayDetection: [],
    Session: ['uid'],
};

/** How long what has ended lies around at most, in milliseconds. */
const SWEEP = 60_000;

const now = () => Math.floor(Date.now() / 1000);

/** Makes the tables. `options` are of a table, `ordered` is the kind of index over what is inserted in about its order. */
export async function prepare(database, { options = '', ordered = '' }) {
    for (const [kind, fields] of Object.entries(KINDS)) {
        const more = fields.map((field) => `, "${field}" text`).join('');
        await database.write(`CREATE TABLE "${kind}" (id text PRIMARY KEY, payload text NOT NULL, expires bigint,
            consumed bigint${more}) ${options}`, []);
        await database.write(`CREATE INDEX "${kind}Ends" ON "${kind}" ${ordered} (expires)`, []);
        for (const field of fields) await database.write(`CREATE INDEX "${kind}.${field}" ON "${kind}" ("${field}")`, []);
    }
}

/** The class of adapters over a database. */
export function adapter(database) {
    return class {
        constructor(kind) {
            this.kind = kind;
            this.fields = KINDS[kind];
            const columns = ['id', 'payload', 'expires', ...this.fields];
            this.upsertion = `INSERT INTO "${kind}" (${columns.map((name) => `"${name}"`).join(', ')})
                VALUES (${columns.map((_, at) => `$${at + 1}`).join(', ')}) ON CONFLICT (id) DO UPDATE SET
                ${columns.slice(1).map((name) => `"${name}" = excluded."${name}"`).join(', ')}`;
            const sweep = () => database.write(`DELETE FROM "${kind}" WHERE expires <= $1`, [now()]);
            setInterval(() => sweep().catch(console.error), SWEEP).unref();
        }

        async by(field, value) {
            const row = await database.read(`SELECT payload, consumed FROM "${this.kind}" WHERE "${field}" = $1
                AND (expires IS NULL OR expires > $2)`, [value, now()]);
            if (row === undefined) return undefined;
            const payload = JSON.parse(row.payload);
            if (row.consumed !== null) payload.consumed = Number(row.consumed);
            return payload;
        }

        find(id) { return this.by('id', id); }

        findByUid(uid) { return this.by('uid', uid); }

        findByUserCode(userCode) { return this.by('userCode', userCode); }

        async upsert(id, payload, expiresIn) {
            const expires = typeof expiresIn === 'number' ? now() + expiresIn : null;
            const found = this.fields.map((field) => payload[field] ?? null);
            await database.write(this.upsertion, [id, JSON.stringify(payload), expires, ...found]);
        }

        async consume(id) {
            await database.write(`UPDATE "${this.kind}" SET consumed = $1 WHERE id = $2`, [now(), id]);
        }

        async destroy(id) {
            await database.write(`DELETE FROM "${this.kind}" WHERE id = $1`, [id]);
        }

        async revokeByGrantId(grantId) {
            await database.write(`DELETE FROM "${this.kind}" WHERE "grantId" = $1`, [grantId]);
        }
    };
}
