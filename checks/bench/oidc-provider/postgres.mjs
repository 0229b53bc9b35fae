// PostgreSQL for the adapter: a pool for each process, each statement prepared once for each connection, and a commit for
// each write, which waits for the disk as the server does by default.
import { createRequire } from 'node:module';

/** The tables: room on a page for the updates of its rows, and an index that costs little over what ends in its order. */
export const layout = { options: 'WITH (fillfactor = 80)', ordered: 'USING brin' };

export function open(url, modules) {
    const { Pool } = createRequire(`${modules}/`)('pg');
    const pool = new Pool({ connectionString: url, max: 10, idleTimeoutMillis: 0 });
    pool.on('error', (error) => console.error(error));
    const names = new Map();
    const run = (text, values) => {
        if (!names.has(text)) names.set(text, `s${names.size}`);
        return pool.query({ name: names.get(text), text, values });
    };
    return {
        read: async (text, values) => (await run(text, values)).rows[0],
        write: run,
    };
}
