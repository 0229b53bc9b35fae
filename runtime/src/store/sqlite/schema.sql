-- Version 1. Every instant is Unix seconds, but for `since` and `retired`, which are microseconds; every digest is 32
-- bytes; `record` is the core's stored form.
--
-- Only tables of small rows are without rowids: a tree of whole records would have four of them to a page, and grow deep.
-- With rowids new records go to the end, and what is random is a narrow index.

CREATE TABLE clients (
    client_id TEXT PRIMARY KEY NOT NULL,
    origin    INTEGER NOT NULL,             -- 0 pre-registered, 1 registered, 2 metadata document
    created   INTEGER NOT NULL,
    used      INTEGER,                      -- last successful authorization
    digest    BLOB NOT NULL,                -- of the record
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX clients_unused ON clients (created) WHERE used IS NULL AND origin <> 0;
CREATE INDEX clients_used ON clients (used) WHERE used IS NOT NULL AND origin <> 0;

CREATE TABLE decisions (
    key       BLOB PRIMARY KEY NOT NULL,
    subject   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    agent     BLOB NOT NULL,                -- the browser, in its stored form
    not_after INTEGER NOT NULL,
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX decisions_by_subject ON decisions (subject, not_after);
CREATE INDEX decisions_by_client ON decisions (client_id, not_after);
CREATE INDEX decisions_by_end ON decisions (not_after);

CREATE TABLE pushed_requests (
    key         BLOB PRIMARY KEY NOT NULL,
    of_operator INTEGER NOT NULL,           -- by a client that the operator let in and that has proved it
    client_id   TEXT NOT NULL,
    not_after   INTEGER NOT NULL,
    record      BLOB NOT NULL
) STRICT;
CREATE INDEX pushed_requests_by_client ON pushed_requests (of_operator, client_id, not_after);
CREATE INDEX pushed_requests_by_end ON pushed_requests (not_after);

CREATE TABLE consents (
    key       BLOB PRIMARY KEY NOT NULL,
    subject   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX consents_by_subject ON consents (subject, client_id);
CREATE INDEX consents_by_client ON consents (client_id);
CREATE INDEX consents_of_subject ON consents (subject, key);
CREATE INDEX consents_by_end ON consents (not_after);

CREATE TABLE codes (
    digest    BLOB PRIMARY KEY NOT NULL,
    family    BLOB NOT NULL,
    spent     INTEGER NOT NULL,
    client_id TEXT NOT NULL,
    subject   TEXT NOT NULL,
    expires   INTEGER NOT NULL,            -- of the code: an unspent one is deleted after it
    not_after INTEGER NOT NULL,            -- of the family: a spent one is deleted after it
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX codes_unspent_by_client ON codes (client_id, expires) WHERE NOT spent;
CREATE INDEX codes_unspent_by_subject ON codes (subject) WHERE NOT spent;
CREATE INDEX codes_unspent_by_end ON codes (expires) WHERE NOT spent;
CREATE INDEX codes_spent_by_end ON codes (not_after) WHERE spent;

-- A family is active from its grant on; its leaf is its newest token, until that is retired.
CREATE TABLE grants (
    family    BLOB PRIMARY KEY NOT NULL,
    client_id TEXT NOT NULL,
    subject   TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX grants_by_subject ON grants (subject, family);
CREATE INDEX grants_by_client ON grants (client_id, family);
CREATE INDEX grants_by_end ON grants (not_after);

CREATE TABLE refresh_tokens (
    digest     BLOB PRIMARY KEY NOT NULL,
    family     BLOB NOT NULL,
    generation INTEGER NOT NULL,
    retired    INTEGER,                     -- when it was rotated away
    request    BLOB,                        -- by which request
    repeats    INTEGER NOT NULL,            -- how often the answer was repeated
    not_after  INTEGER NOT NULL,            -- of the family
    record     BLOB NOT NULL
) STRICT;
-- One newest token in each family.
CREATE UNIQUE INDEX refresh_chain ON refresh_tokens (family, generation);
CREATE INDEX refresh_by_end ON refresh_tokens (not_after);

CREATE TABLE access_tokens (
    digest    BLOB PRIMARY KEY NOT NULL,
    family    BLOB NOT NULL,
    not_after INTEGER NOT NULL,            -- of the token
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX access_by_end ON access_tokens (not_after);

CREATE TABLE tombstones (
    family    BLOB PRIMARY KEY NOT NULL,
    reason    TEXT NOT NULL,
    revoked   INTEGER NOT NULL,
    not_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_end ON tombstones (not_after);

-- What was granted under an older number has ended. No number is used twice: it says when it was written, in
-- microseconds. A row that ends nothing any more is deleted, but that of everybody.
CREATE TABLE epochs (
    kind      INTEGER NOT NULL,            -- 1 client, 2 subject, 3 consent, 4 the sessions of everybody
    subject   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    looked_at INTEGER NOT NULL,            -- when it was written, or seen to end something, in microseconds
    PRIMARY KEY (kind, subject, client_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX epochs_by_look ON epochs (looked_at);

CREATE TABLE reservations (
    key   BLOB PRIMARY KEY NOT NULL,        -- digest of kind, issuer, audience and value, each with its length
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_by_end ON reservations (until);

CREATE TABLE signing_keys (
    kid        TEXT PRIMARY KEY NOT NULL,
    algorithm  TEXT NOT NULL,
    state      TEXT NOT NULL,               -- published, signing, retired
    since      INTEGER NOT NULL,
    public_jwk BLOB NOT NULL,
    sealed     BLOB NOT NULL                -- the private part, under the master key
) STRICT;
CREATE UNIQUE INDEX signing_keys_one_signs ON signing_keys (state) WHERE state = 'signing';
CREATE UNIQUE INDEX signing_keys_one_waits ON signing_keys (state) WHERE state = 'published';

CREATE TABLE incarnation (
    one    INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO incarnation (one, number) VALUES (1, 0);
