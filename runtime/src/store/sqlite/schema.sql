-- Version 1. Every instant is Unix seconds; every digest is 32 bytes; `record` is the core's stored form.

CREATE TABLE clients (
    client_id TEXT PRIMARY KEY NOT NULL,
    origin    INTEGER NOT NULL,             -- 0 pre-registered, 1 registered, 2 metadata document
    created   INTEGER NOT NULL,
    used      INTEGER,                      -- last successful authorization
    record    BLOB NOT NULL
) STRICT;
CREATE INDEX clients_unused ON clients (created) WHERE used IS NULL AND origin <> 0;
CREATE INDEX clients_used ON clients (used) WHERE used IS NOT NULL AND origin <> 0;

CREATE TABLE decisions (
    key       BLOB PRIMARY KEY NOT NULL,
    not_after INTEGER NOT NULL,
    record    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX decisions_by_end ON decisions (not_after);

CREATE TABLE codes (
    digest    BLOB PRIMARY KEY NOT NULL,
    family    BLOB NOT NULL,
    spent     INTEGER NOT NULL,
    not_after INTEGER NOT NULL,             -- of the family
    record    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX codes_by_end ON codes (not_after);

CREATE TABLE families (
    family     BLOB PRIMARY KEY NOT NULL,
    active     INTEGER NOT NULL,            -- 0 pending, 1 active
    generation INTEGER NOT NULL,            -- of the live refresh token
    not_after  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX families_by_end ON families (not_after);

CREATE TABLE grants (
    family    BLOB PRIMARY KEY NOT NULL,
    client_id TEXT NOT NULL,
    subject   TEXT NOT NULL,
    not_after INTEGER NOT NULL,
    record    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX grants_by_subject ON grants (subject, client_id);
CREATE INDEX grants_by_client ON grants (client_id);
CREATE INDEX grants_by_end ON grants (not_after);

CREATE TABLE refresh_tokens (
    digest     BLOB PRIMARY KEY NOT NULL,
    family     BLOB NOT NULL,
    generation INTEGER NOT NULL,
    retired    INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,            -- of the family
    record     BLOB NOT NULL
) STRICT, WITHOUT ROWID;
-- Never two live tokens in one family.
CREATE UNIQUE INDEX refresh_leaf ON refresh_tokens (family) WHERE retired = 0;
CREATE UNIQUE INDEX refresh_chain ON refresh_tokens (family, generation);
CREATE INDEX refresh_by_end ON refresh_tokens (not_after);

CREATE TABLE tombstones (
    family    BLOB PRIMARY KEY NOT NULL,
    reason    TEXT NOT NULL,
    revoked   INTEGER NOT NULL,
    not_after INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_by_end ON tombstones (not_after);

CREATE TABLE epochs (
    kind      INTEGER NOT NULL,             -- 1 client, 2 subject, 3 consent
    subject   TEXT NOT NULL,
    client_id TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    PRIMARY KEY (kind, subject, client_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE reservations (
    kind     INTEGER NOT NULL,
    issuer   TEXT NOT NULL,
    audience TEXT NOT NULL,
    value    TEXT NOT NULL,
    until    INTEGER NOT NULL,
    PRIMARY KEY (kind, issuer, audience, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_by_end ON reservations (until);

CREATE TABLE signing_keys (
    kid        TEXT PRIMARY KEY NOT NULL,
    algorithm  TEXT NOT NULL,
    state      TEXT NOT NULL,               -- published, signing, retired
    public_jwk BLOB NOT NULL,
    sealed     BLOB NOT NULL,               -- the private part, under the master key
    published  INTEGER NOT NULL,
    signing    INTEGER,
    retired    INTEGER
) STRICT;

CREATE TABLE incarnation (
    only   INTEGER PRIMARY KEY NOT NULL CHECK (only = 1),
    number INTEGER NOT NULL
) STRICT;
INSERT INTO incarnation (only, number) VALUES (1, 0);
