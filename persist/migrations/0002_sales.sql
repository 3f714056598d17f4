-- What the events of the log add up to; docs/SCHEMA.md says what the columns mean. Times are UTC,
-- as text of the form `2026-11-23 19:30:00.000` in SQLite. `epoch` and `sequence` are those of the
-- last decision that changed a row; a hold, and the order that it becomes, has the number of the
-- event that made it. A column that only some events know may be null; it keeps what it has until
-- an event that knows it comes. Keys begin with the showtime: its foreign key needs no index then,
-- and what is asked of a showtime lies together.

CREATE TABLE shard_position (
    shard    BIGINT NOT NULL PRIMARY KEY,
    epoch    BIGINT NOT NULL,
    sequence BIGINT NOT NULL
) /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

CREATE TABLE hold (
    shard       BIGINT      NOT NULL,
    hold_seq    BIGINT      NOT NULL,
    slot        BIGINT      NOT NULL,
    showtime_id BIGINT      NOT NULL,
    entry       BIGINT      NOT NULL,
    state       VARCHAR(16) NOT NULL,
    seats       BIGINT,
    created_at  DATETIME(3),
    deadline    DATETIME(3),
    epoch       BIGINT      NOT NULL,
    sequence    BIGINT      NOT NULL,
    PRIMARY KEY (showtime_id, shard, hold_seq)
    /*! , FOREIGN KEY (showtime_id) REFERENCES showtimes (showtime_id) */
) WITHOUT ROWID /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

CREATE TABLE ticket_order (
    shard        BIGINT      NOT NULL,
    hold_seq     BIGINT      NOT NULL,
    slot         BIGINT      NOT NULL,
    showtime_id  BIGINT      NOT NULL,
    user_id      BIGINT      NOT NULL,
    total        BIGINT      NOT NULL,
    currency     VARCHAR(16) NOT NULL,
    state        VARCHAR(16) NOT NULL,
    payment_ref  TEXT,
    confirmed_at DATETIME(3),
    refunded_at  DATETIME(3),
    epoch        BIGINT      NOT NULL,
    sequence     BIGINT      NOT NULL,
    PRIMARY KEY (showtime_id, shard, hold_seq)
    /*! , FOREIGN KEY (showtime_id) REFERENCES showtimes (showtime_id),
        FOREIGN KEY (user_id) REFERENCES users (user_id) */
) WITHOUT ROWID /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;
CREATE INDEX ticket_order_user ON ticket_order (user_id);

-- `seat_addr` is the engine's number of the seat, `seat` the plan's name of it.
CREATE TABLE ticket (
    shard       BIGINT       NOT NULL,
    hold_seq    BIGINT       NOT NULL,
    seat_addr   BIGINT       NOT NULL,
    showtime_id BIGINT       NOT NULL,
    seat        VARCHAR(300) NOT NULL,
    tier        VARCHAR(760) NOT NULL,
    price       BIGINT       NOT NULL,
    state       VARCHAR(16)  NOT NULL,
    epoch       BIGINT       NOT NULL,
    sequence    BIGINT       NOT NULL,
    PRIMARY KEY (showtime_id, shard, hold_seq, seat_addr)
    /*! , FOREIGN KEY (showtime_id) REFERENCES showtimes (showtime_id) */
) WITHOUT ROWID /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;

-- `number` is null for a buyer who never joined the line.
CREATE TABLE line_entry (
    shard         BIGINT      NOT NULL,
    showtime_id   BIGINT      NOT NULL,
    entry         BIGINT      NOT NULL,
    place         VARCHAR(16) NOT NULL,
    session_until DATETIME(3),
    changed_at    DATETIME(3) NOT NULL,
    user_id       BIGINT,
    number        BIGINT,
    epoch         BIGINT      NOT NULL,
    sequence      BIGINT      NOT NULL,
    PRIMARY KEY (showtime_id, shard, entry)
    /*! , FOREIGN KEY (showtime_id) REFERENCES showtimes (showtime_id),
        FOREIGN KEY (user_id) REFERENCES users (user_id) */
) WITHOUT ROWID /*! ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin */;
CREATE INDEX line_entry_user ON line_entry (user_id);
