-- What the events of the log add up to. Times are milliseconds since 1970, UTC. `epoch` and
-- `sequence` are those of the last event that changed a row; a hold, and the order that it
-- becomes, has the number of the event that made it. A column that only some events know may be
-- null; it keeps what it has until an event that knows it comes.

CREATE TABLE shard_position (
    shard    INTEGER NOT NULL PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    sequence INTEGER NOT NULL
);

CREATE TABLE hold (
    shard       INTEGER NOT NULL,
    hold_seq    INTEGER NOT NULL,
    slot        INTEGER NOT NULL,
    showtime_id INTEGER NOT NULL,
    entry       INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    seats       INTEGER,
    created_at  INTEGER,
    deadline    INTEGER,
    epoch       INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    PRIMARY KEY (shard, hold_seq)
) WITHOUT ROWID;

CREATE TABLE ticket_order (
    shard        INTEGER NOT NULL,
    hold_seq     INTEGER NOT NULL,
    slot         INTEGER NOT NULL,
    showtime_id  INTEGER NOT NULL,
    user_id      INTEGER NOT NULL,
    state        TEXT    NOT NULL,
    total        INTEGER NOT NULL,
    currency     TEXT    NOT NULL,
    payment_ref  TEXT,
    confirmed_at INTEGER,
    refunded_at  INTEGER,
    epoch        INTEGER NOT NULL,
    sequence     INTEGER NOT NULL,
    PRIMARY KEY (shard, hold_seq)
) WITHOUT ROWID;
CREATE INDEX ticket_order_user ON ticket_order (user_id);
CREATE INDEX ticket_order_showtime ON ticket_order (showtime_id);

-- `seat_addr` is the engine's number of the seat, `seat` the plan's name of it.
CREATE TABLE ticket (
    shard       INTEGER NOT NULL,
    hold_seq    INTEGER NOT NULL,
    seat_addr   INTEGER NOT NULL,
    showtime_id INTEGER NOT NULL,
    seat        TEXT    NOT NULL,
    tier        TEXT    NOT NULL,
    price       INTEGER NOT NULL,
    state       TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    PRIMARY KEY (shard, hold_seq, seat_addr)
) WITHOUT ROWID;
CREATE INDEX ticket_showtime ON ticket (showtime_id);

-- `number` is null for a buyer who never joined the line.
CREATE TABLE line_entry (
    shard         INTEGER NOT NULL,
    showtime_id   INTEGER NOT NULL,
    entry         INTEGER NOT NULL,
    user_id       INTEGER,
    number        INTEGER,
    place         TEXT    NOT NULL,
    session_until INTEGER,
    changed_at    INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    sequence      INTEGER NOT NULL,
    PRIMARY KEY (shard, showtime_id, entry)
) WITHOUT ROWID;
CREATE INDEX line_entry_user ON line_entry (user_id);
