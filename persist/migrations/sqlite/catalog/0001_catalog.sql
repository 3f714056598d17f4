-- Times are milliseconds since 1970, UTC. A column called *_folded is the lower-case twin of the
-- one before it, made by the program, so that searching and uniqueness do not depend on what a
-- database thinks a letter is. Venues, shows and showtimes are marked as deleted, never taken
-- out: the log may speak of them, and their numbers must not come again.

CREATE TABLE settings (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    user_id       INTEGER PRIMARY KEY AUTOINCREMENT,
    email         TEXT    NOT NULL,
    email_folded  TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    created_at    INTEGER NOT NULL
);

-- A family is the chain of tokens that one sign-in began; it has the number of its first token.
CREATE TABLE refresh_tokens (
    token_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash BLOB    NOT NULL UNIQUE,
    family     INTEGER NOT NULL,
    user_id    INTEGER NOT NULL REFERENCES users (user_id),
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE signing_keys (
    kid        TEXT    NOT NULL PRIMARY KEY,
    private    BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER
);

CREATE TABLE venues (
    venue_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL,
    name_folded TEXT    NOT NULL,
    address     TEXT,
    plan_id     INTEGER REFERENCES plans (plan_id),
    deleted_at  INTEGER
);

-- A venue points at its present plan, a showtime at the one it was made with.
CREATE TABLE plans (
    plan_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    body       BLOB    NOT NULL,
    seats      INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);

CREATE TABLE shows (
    show_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    venue_id    INTEGER NOT NULL REFERENCES venues (venue_id),
    name        TEXT    NOT NULL,
    name_folded TEXT    NOT NULL,
    description TEXT,
    image_url   TEXT,
    deleted_at  INTEGER
);
CREATE INDEX shows_venue ON shows (venue_id);

CREATE TABLE showtimes (
    showtime_id        INTEGER PRIMARY KEY AUTOINCREMENT,
    show_id            INTEGER NOT NULL REFERENCES shows (show_id),
    plan_id            INTEGER NOT NULL REFERENCES plans (plan_id),
    starts_at          INTEGER NOT NULL,
    currency           TEXT    NOT NULL,
    opens_at           INTEGER NOT NULL,
    closes_at          INTEGER,
    seat_limit         INTEGER NOT NULL,
    hold_ttl_ms        INTEGER NOT NULL,
    line_mode          TEXT    NOT NULL,
    line_max_active    INTEGER NOT NULL,
    line_rate_per_1000s INTEGER NOT NULL,
    line_grace_ms      INTEGER NOT NULL,
    line_session_ms    INTEGER NOT NULL,
    deleted_at         INTEGER
);
CREATE INDEX showtimes_show ON showtimes (show_id, starts_at);
CREATE INDEX showtimes_plan ON showtimes (plan_id);

CREATE TABLE prices (
    showtime_id INTEGER NOT NULL REFERENCES showtimes (showtime_id),
    tier        TEXT    NOT NULL,
    amount      INTEGER NOT NULL,
    PRIMARY KEY (showtime_id, tier)
);

-- What an organiser's call with an idempotency key was answered.
CREATE TABLE idempotent_calls (
    scope       INTEGER NOT NULL,
    key_hash    BLOB    NOT NULL,
    fingerprint BLOB    NOT NULL,
    status      INTEGER NOT NULL,
    body        BLOB    NOT NULL,
    answered_at INTEGER NOT NULL,
    PRIMARY KEY (scope, key_hash)
);
CREATE INDEX idempotent_calls_age ON idempotent_calls (answered_at);
