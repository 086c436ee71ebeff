-- Facts about the store itself: cluster, gateway, and the store's key sealed under the CA's opener.
CREATE TABLE fact (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- CAs. At most one issues; those before it still sign their revocation lists until they expire.
CREATE TABLE authority (
    id          INTEGER PRIMARY KEY,
    rank        TEXT    NOT NULL CHECK (rank IN ('sole', 'root', 'online')),
    algorithm   TEXT    NOT NULL,
    standing    TEXT    NOT NULL CHECK (standing IN ('issuing', 'retiring', 'root')),
    certificate BLOB    NOT NULL,
    bridge      BLOB,
    sealed_key  BLOB,
    opener      TEXT    NOT NULL CHECK (opener IN ('passphrase', 'key file', 'absent')),
    serial      INTEGER NOT NULL UNIQUE,
    expiry_day  INTEGER NOT NULL,
    made        INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX authority_issues_alone ON authority (standing) WHERE standing = 'issuing';

-- Tickets are never deleted: a number is never used again. `version` is compared and set with each change.
CREATE TABLE ticket (
    number   INTEGER PRIMARY KEY,
    version  INTEGER NOT NULL,
    role     TEXT    NOT NULL CHECK (role IN ('client', 'node')),
    name     TEXT    NOT NULL,
    status   TEXT    NOT NULL CHECK (status IN ('open', 'requested', 'issued', 'proven', 'lapsed', 'used again', 'voided')),
    made     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    serial   INTEGER UNIQUE,
    document TEXT    NOT NULL,
    keys     BLOB,
    -- Open or used, never both.
    CHECK (status NOT IN ('open', 'requested') OR serial IS NULL),
    CHECK (status NOT IN ('issued', 'proven', 'lapsed', 'used again') OR serial IS NOT NULL)
) STRICT;
CREATE INDEX ticket_by_status ON ticket (status);

-- Every valid request that ever came, and what was answered.
CREATE TABLE request (
    ticket   INTEGER NOT NULL REFERENCES ticket (number),
    hash     BLOB    NOT NULL,
    key_hash BLOB    NOT NULL,
    came     INTEGER NOT NULL,
    answer   TEXT    NOT NULL,
    PRIMARY KEY (ticket, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE certificate (
    serial     INTEGER PRIMARY KEY,
    authority  INTEGER NOT NULL REFERENCES authority (id),
    kind       TEXT    NOT NULL CHECK (kind IN ('client', 'node', 'gateway', 'signer')),
    name       TEXT    NOT NULL,
    profile    INTEGER NOT NULL DEFAULT 0,
    ticket     INTEGER REFERENCES ticket (number),
    renews     INTEGER REFERENCES certificate (serial),
    key_hash   BLOB    NOT NULL UNIQUE,
    issued     INTEGER NOT NULL,
    start_day  INTEGER NOT NULL,
    expiry_day INTEGER NOT NULL,
    proven     INTEGER,
    -- Empty between the consumption of a ticket and the signature.
    der        BLOB
) STRICT;
CREATE INDEX certificate_by_name ON certificate (name);

CREATE TABLE revocation (
    serial INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    cause  TEXT    NOT NULL CHECK (cause IN ('unspecified', 'compromise', 'superseded', 'withdrawn'))
) STRICT;
CREATE TABLE revoked_key (
    key_hash BLOB PRIMARY KEY,
    at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE suspension (
    serial INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL
) STRICT;
CREATE TABLE revocation_list (
    authority INTEGER NOT NULL REFERENCES authority (id),
    number    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    der       BLOB    NOT NULL,
    PRIMARY KEY (authority, number)
) STRICT, WITHOUT ROWID;

-- Networks and name servers of the profile numbers.
CREATE TABLE profile (
    number   INTEGER PRIMARY KEY CHECK (number BETWEEN 0 AND 15),
    name     TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL
) STRICT;

-- Who did what, each entry's hash over the one before it.
CREATE TABLE journal (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    act     TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    hash    BLOB    NOT NULL
) STRICT;

CREATE TRIGGER journal_is_not_changed BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
CREATE TRIGGER journal_is_not_cut BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal only grows'); END;
CREATE TRIGGER revocation_stands BEFORE DELETE ON revocation BEGIN SELECT RAISE(ABORT, 'a revocation stands'); END;
CREATE TRIGGER revoked_key_stands BEFORE DELETE ON revoked_key BEGIN SELECT RAISE(ABORT, 'a revocation stands'); END;
CREATE TRIGGER ticket_stays BEFORE DELETE ON ticket BEGIN SELECT RAISE(ABORT, 'a ticket number is never used again'); END;
