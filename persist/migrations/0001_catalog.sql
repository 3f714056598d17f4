-- What is offered, and who may do what. Times are milliseconds since 1970, UTC. A column called
-- *_folded is the lower-case twin of the one before it, made by the program, so that searching and
-- uniqueness do not depend on what a database thinks a letter is. Venues, shows and showtimes are
-- marked as deleted, never taken out: the log may speak of them, and their numbers must not come
-- again. What stands in executable comments is for MySQL and MariaDB; see database/migrations.rs.

CREATE TABLE settings (
    name  VARCHAR(64) NOT NULL PRIMARY KEY,
    value MEDIUMTEXT  NOT NULL
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

CREATE TABLE users (
    user_id       INTEGER PRIMARY KEY AUTOINCREMENT,
    email         VARCHAR(254) NOT NULL,
    email_folded  VARCHAR(512) NOT NULL UNIQUE,
    password_hash TEXT         NOT NULL,
    role          VARCHAR(16)  NOT NULL,
    created_at    BIGINT       NOT NULL
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

-- A family is the chain of tokens that one sign-in began; it has the number of its first token.
CREATE TABLE refresh_tokens (
    token_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash VARBINARY(32) NOT NULL UNIQUE,
    family     BIGINT        NOT NULL,
    user_id    BIGINT        NOT NULL,
    expires_at BIGINT        NOT NULL,
    used_at    BIGINT,
    FOREIGN KEY (user_id) REFERENCES users (user_id)
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_user ON refresh_tokens (user_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE signing_keys (
    kid        VARCHAR(128)  NOT NULL PRIMARY KEY,
    private    VARBINARY(1024) NOT NULL,
    created_at BIGINT        NOT NULL,
    retired_at BIGINT
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

-- A venue points at its present plan, a showtime at the one it was made with.
CREATE TABLE plans (
    plan_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    body       LONGBLOB NOT NULL,
    seats      BIGINT   NOT NULL,
    created_at BIGINT   NOT NULL
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

CREATE TABLE venues (
    venue_id    INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL,
    name_folded TEXT NOT NULL,
    address     TEXT,
    plan_id     BIGINT,
    deleted_at  BIGINT,
    FOREIGN KEY (plan_id) REFERENCES plans (plan_id)
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

CREATE TABLE shows (
    show_id     INTEGER PRIMARY KEY AUTOINCREMENT,
    venue_id    BIGINT NOT NULL,
    name        TEXT   NOT NULL,
    name_folded TEXT   NOT NULL,
    description MEDIUMTEXT,
    image_url   TEXT,
    deleted_at  BIGINT,
    FOREIGN KEY (venue_id) REFERENCES venues (venue_id)
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;
CREATE INDEX shows_venue ON shows (venue_id);

CREATE TABLE showtimes (
    showtime_id         INTEGER PRIMARY KEY AUTOINCREMENT,
    show_id             BIGINT      NOT NULL,
    plan_id             BIGINT      NOT NULL,
    starts_at           BIGINT      NOT NULL,
    currency            VARCHAR(16) NOT NULL,
    opens_at            BIGINT      NOT NULL,
    closes_at           BIGINT,
    seat_limit          BIGINT      NOT NULL,
    hold_ttl_ms         BIGINT      NOT NULL,
    line_mode           VARCHAR(16) NOT NULL,
    line_max_active     BIGINT      NOT NULL,
    line_rate_per_1000s BIGINT      NOT NULL,
    line_grace_ms       BIGINT      NOT NULL,
    line_session_ms     BIGINT      NOT NULL,
    deleted_at          BIGINT,
    FOREIGN KEY (show_id) REFERENCES shows (show_id),
    FOREIGN KEY (plan_id) REFERENCES plans (plan_id)
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;
CREATE INDEX showtimes_show ON showtimes (show_id, starts_at);
CREATE INDEX showtimes_plan ON showtimes (plan_id);

CREATE TABLE prices (
    showtime_id BIGINT       NOT NULL,
    tier        VARCHAR(760) NOT NULL,
    amount      BIGINT       NOT NULL,
    PRIMARY KEY (showtime_id, tier),
    FOREIGN KEY (showtime_id) REFERENCES showtimes (showtime_id)
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

-- What an organiser's call with an idempotency key was answered.
CREATE TABLE idempotent_calls (
    scope       BIGINT        NOT NULL,
    key_hash    VARBINARY(32) NOT NULL,
    fingerprint VARBINARY(32) NOT NULL,
    status      BIGINT        NOT NULL,
    body        LONGBLOB      NOT NULL,
    answered_at BIGINT        NOT NULL,
    PRIMARY KEY (scope, key_hash)
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;
CREATE INDEX idempotent_calls_age ON idempotent_calls (answered_at);

-- Whoever changes something locks this row first: changes come one after the other, from any
-- number of processes, as SQLite has it by itself.
INSERT INTO settings (name, value) VALUES ('turn', '');
