// SQLite for the adapter, with the one that comes with Node: the log is read at once, a thread of its own writes and waits
// for the disk, and what came meanwhile is committed together.
import { DatabaseSync } from 'node:sqlite';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';

export const layout = {};

function connect(file) {
    const connection = new DatabaseSync(file, { timeout: 5_000 });
    connection.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL');
    const prepared = new Map();
    return {
        exec: (text) => connection.exec(text),
        prepare: (text) => {
            if (!prepared.has(text)) prepared.set(text, connection.prepare(text.replaceAll(/\$\d/g, '?')));
            return prepared.get(text);
        },
    };
}

export function open(file) {
    const reader = connect(file);
    const writer = new Worker(new URL(import.meta.url), { workerData: file });
    let [waiting, sent] = [[], []];
    const send = () => {
        [waiting, sent] = [[], waiting];
        writer.postMessage(sent.map(({ text, values }) => ({ text, values })));
    };
    writer.on('message', (failure) => {
        for (const { resolve, reject } of sent) {
            if (failure === null) resolve();
            else reject(failure);
        }
        sent = [];
        if (waiting.length > 0) send();
    });
    return {
        read: async (text, values) => reader.prepare(text).get(...values),
        write: (text, values) => new Promise((resolve, reject) => {
            waiting.push({ text, values, resolve, reject });
            if (sent.length === 0) send();
        }),
    };
}

if (!isMainThread) {
    const connection = connect(workerData);
    parentPort.on('message', (batch) => {
        try {
            connection.exec('BEGIN IMMEDIATE');
            for (const { text, values } of batch) connection.prepare(text).run(...values);
            connection.exec('COMMIT');
            parentPort.postMessage(null);
        } catch (error) {
            try { connection.exec('ROLLBACK'); } catch { /* it is not open */ }
            parentPort.postMessage(error);
        }
    });
}
