//! The tables of the rows, and the statements that write them.

use std::borrow::Cow;
use std::fmt::Write as _;

use tmomi_engine::ids::{BuyerId, EntryId, LineNumber, Seq, ShowtimeId, TimeMs};
use tmomi_engine::state::Place;

use super::EntryKey;
use super::rows::{EntryRow, HoldKey, HoldOutcome, HoldRow, OrderRow, Stamp, TicketKey, TicketRow};
use crate::database::Dialect;

/// What stands in a column, or is to stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Nothing, in a column of numbers.
    NoNumber,
    /// Nothing, in a column of text or times.
    NoText,
    /// A number.
    Number(i64),
    /// Text, or a time as the database has it.
    Text(Cow<'a, str>),
}

impl Value<'_> {
    /// The same, for as long as one likes.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Value::NoNumber => Value::NoNumber,
            Value::NoText => Value::NoText,
            Value::Number(number) => Value::Number(number),
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Value::NoNumber | Value::NoText)
    }

    /// Whether a database does not tell the two apart.
    pub(crate) fn is_same(&self, other: &Value<'_>) -> bool {
        self == other || self.is_null() && other.is_null()
    }
}

impl std::fmt::Display for Value<'_> {
    /// Text in quotes, so that no name is mistaken for something else.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::NoNumber | Value::NoText => f.write_str("null"),
            Value::Number(number) => number.fmt(f),
            Value::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// Columns of a key at most.
pub(crate) const KEY_COLUMNS_MAX: usize = 4;

/// A table. Its columns are those of the four lists in their order, then `epoch` and `sequence`.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: &'static str,
    /// The key. Rows are written and read in its order. The showtime comes first: its foreign key
    /// then needs no index of its own, and its rows lie together.
    pub(crate) key: &'static [&'static str],
    /// What stays as the first event said it.
    pub(crate) fixed: &'static [&'static str],
    /// What every event says anew.
    pub(crate) said: &'static [&'static str],
    /// What some events say; the others leave it as it is.
    pub(crate) known: &'static [&'static str],
    /// Which of these are times.
    pub(crate) times: &'static [&'static str],
    /// What no image remembers.
    pub(crate) untold: &'static [&'static str],
}

pub(crate) static HOLD: Table = Table {
    name: "hold",
    key: &["showtime_id", "shard", "hold_seq"],
    fixed: &["slot", "entry"],
    said: &["state"],
    known: &["seats", "created_at", "deadline"],
    times: &["created_at", "deadline"],
    untold: &[],
};

pub(crate) static ORDER: Table = Table {
    name: "ticket_order",
    key: &["showtime_id", "shard", "hold_seq"],
    fixed: &["slot", "user_id", "total", "currency"],
    said: &["state"],
    known: &["payment_ref", "confirmed_at", "refunded_at"],
    times: &["confirmed_at", "refunded_at"],
    untold: &["payment_ref"],
};

pub(crate) static TICKET: Table = Table {
    name: "ticket",
    key: &["showtime_id", "shard", "hold_seq", "seat_addr"],
    fixed: &["seat", "tier", "price"],
    said: &["state"],
    known: &[],
    times: &[],
    untold: &[],
};

pub(crate) static ENTRY: Table = Table {
    name: "line_entry",
    key: &["showtime_id", "shard", "entry"],
    fixed: &[],
    said: &["place", "session_until", "changed_at"],
    known: &["user_id", "number"],
    times: &["session_until", "changed_at"],
    untold: &["changed_at"],
};

/// Which decision changed a row last: the last columns of every table.
const STAMP: &[&str] = &["epoch", "sequence"];

impl Table {
    pub(crate) fn columns(&self) -> impl Iterator<Item = &'static str> + Clone {
        let lists = [self.key, self.fixed, self.said, self.known, STAMP];
        lists.into_iter().flatten().copied()
    }

    /// The statement that inserts `rows` rows or, where there is one of the same key and no newer
    /// stamp, changes it.
    pub(super) fn upsert(&self, rows: usize, dialect: Dialect) -> String {
        let names: Vec<&str> = self.columns().collect();
        let row = format!("({})", vec!["?"; names.len()].join(", "));
        let mut sql = format!("INSERT INTO {} ({}) VALUES ", self.name, names.join(", "));
        for n in 0..rows {
            sql.push_str(if n > 0 { ", " } else { "" });
            sql.push_str(&row);
        }
        match dialect {
            Dialect::Sqlite => self.push_conflict(&mut sql),
            Dialect::MySql => self.push_duplicate(&mut sql),
        }
        sql
    }

    fn push_conflict(&self, sql: &mut String) {
        let name = self.name;
        let said = self.said.iter().chain(STAMP).map(|c| format!("{c} = excluded.{c}"));
        let known = |c: &&str| format!("{c} = COALESCE(excluded.{c}, {name}.{c})");
        let set: Vec<String> = said.chain(self.known.iter().map(known)).collect();
        write!(
            sql,
            " ON CONFLICT ({}) DO UPDATE SET {}
             WHERE (excluded.epoch, excluded.sequence) > ({name}.epoch, {name}.sequence)",
            self.key.join(", "),
            set.join(", "),
        )
        .expect("a String takes every write");
    }

    /// The columns of the stamp come last: those before them are compared with the old ones.
    fn push_duplicate(&self, sql: &mut String) {
        const NEWER: &str = "(VALUES(epoch), VALUES(sequence)) > (epoch, sequence)";
        let said = |c: &&str| format!("{c} = IF({NEWER}, VALUES({c}), {c})");
        let known = |c: &&str| format!("{c} = IF({NEWER}, COALESCE(VALUES({c}), {c}), {c})");
        let mut set: Vec<String> = self.said.iter().map(said).collect();
        set.extend(self.known.iter().map(known));
        // The greater epoch is that of the newer stamp, or both are equal.
        set.push(format!("sequence = IF({NEWER}, VALUES(sequence), sequence)"));
        set.push("epoch = GREATEST(VALUES(epoch), epoch)".to_owned());
        write!(sql, " ON DUPLICATE KEY UPDATE {}", set.join(", "))
            .expect("a String takes every write");
    }

    /// The columns as they are read back: times as text.
    pub(crate) fn selected(&self, dialect: Dialect) -> String {
        let text = match dialect {
            Dialect::Sqlite => "TEXT",
            Dialect::MySql => "CHAR",
        };
        let column = |name: &'static str| match self.times.contains(&name) {
            true => format!("CAST({name} AS {text}) AS {name}").into(),
            false => Cow::Borrowed(name),
        };
        self.columns().map(column).collect::<Vec<_>>().join(", ")
    }
}

/// A row of a table.
pub(crate) trait TableRow {
    /// What tells it from others of its shard.
    type Key;

    /// Its table.
    fn table() -> &'static Table;

    /// What stands in its columns, in the order of the table's.
    fn put<'a>(&'a self, shard: u32, key: &Self::Key, put: &mut impl FnMut(Value<'a>));
}

fn number<'a>(number: impl Into<i64>) -> Value<'a> {
    Value::Number(number.into())
}

fn number_or_none<'a>(number: Option<i64>) -> Value<'a> {
    number.map_or(Value::NoNumber, Value::Number)
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn time<'a>(at: TimeMs) -> Value<'a> {
    Value::Text(Cow::Owned(sql_time(at)))
}

fn time_or_none<'a>(at: Option<TimeMs>) -> Value<'a> {
    at.map_or(Value::NoText, time)
}

fn stamp<'a>(stamp: Stamp, put: &mut impl FnMut(Value<'a>)) {
    put(number(stamp.epoch.0));
    put(number(stamp.seq.0 as i64));
}

impl TableRow for HoldRow {
    type Key = HoldKey;

    fn table() -> &'static Table {
        &HOLD
    }

    fn put<'a>(&'a self, shard: u32, key: &HoldKey, put: &mut impl FnMut(Value<'a>)) {
        let (ShowtimeId(showtime), Seq(seq)) = *key;
        put(number(showtime));
        put(number(shard));
        put(number(seq as i64));
        put(number(self.slot.0));
        put(number(self.entry.0));
        put(text(match self.state {
            HoldOutcome::Active => "active",
            HoldOutcome::Confirmed => "confirmed",
            HoldOutcome::Released => "released",
            HoldOutcome::Expired => "expired",
            HoldOutcome::Refunded => "refunded",
        }));
        put(number_or_none(self.seats.map(i64::from)));
        put(time_or_none(self.created_at));
        put(time_or_none(self.deadline));
        stamp(self.stamp, put);
    }
}

impl TableRow for OrderRow {
    type Key = HoldKey;

    fn table() -> &'static Table {
        &ORDER
    }

    fn put<'a>(&'a self, shard: u32, key: &HoldKey, put: &mut impl FnMut(Value<'a>)) {
        let (ShowtimeId(showtime), Seq(seq)) = *key;
        put(number(showtime));
        put(number(shard));
        put(number(seq as i64));
        put(number(self.slot.0));
        put(number(self.buyer.0 as i64));
        put(number(self.total as i64));
        put(text(&self.currency));
        put(text(if self.refunded { "refunded" } else { "confirmed" }));
        put(self.payment_ref.as_deref().map_or(Value::NoText, text));
        put(time_or_none(self.confirmed_at));
        put(time_or_none(self.refunded_at));
        stamp(self.stamp, put);
    }
}

impl TableRow for TicketRow {
    type Key = TicketKey;

    fn table() -> &'static Table {
        &TICKET
    }

    fn put<'a>(&'a self, shard: u32, key: &TicketKey, put: &mut impl FnMut(Value<'a>)) {
        let (ShowtimeId(showtime), Seq(seq), seat) = *key;
        put(number(showtime));
        put(number(shard));
        put(number(seq as i64));
        put(number(seat.raw()));
        put(text(&self.seat));
        put(text(&self.tier));
        put(number(self.price as i64));
        put(text(if self.refunded { "refunded" } else { "valid" }));
        stamp(self.stamp, put);
    }
}

impl TableRow for EntryRow {
    type Key = EntryKey;

    fn table() -> &'static Table {
        &ENTRY
    }

    fn put<'a>(&'a self, shard: u32, key: &EntryKey, put: &mut impl FnMut(Value<'a>)) {
        let (ShowtimeId(showtime), EntryId(entry)) = *key;
        put(number(showtime));
        put(number(shard));
        put(number(entry));
        put(text(match self.place {
            Place::Out => "out",
            Place::Waiting => "waiting",
            Place::Passed => "passed",
            Place::Admitted => "admitted",
            Place::Expired => "expired",
        }));
        put(time_or_none(self.session_until));
        put(time(self.changed_at));
        put(number_or_none(self.buyer.map(|BuyerId(buyer)| buyer as i64)));
        put(number_or_none(self.number.map(|LineNumber(number)| i64::from(number))));
        stamp(self.stamp, put);
    }
}

/// The last moment that the databases know.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// A time as the databases read it: `2026-11-23 19:30:00.000`, UTC.
fn sql_time(at: TimeMs) -> String {
    let ms = at.0.min(TIME_MS_MAX);
    let (days, ms) = (ms / 86_400_000, ms % 86_400_000);
    let (s, ms) = (ms / 1_000, ms % 1_000);
    let date = time::Date::from_julian_day(2_440_588 + days as i32).expect("before the year 10000");
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = (s / 3_600, s / 60 % 60, s % 60);
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// A time as the databases give it, or `None` if it is none.
pub(super) fn read_time(text: &str) -> Option<TimeMs> {
    let (date, clock) = text.split_once(' ')?;
    let mut date = date.splitn(3, '-').map(str::parse::<u16>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let month = time::Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = time::Date::from_calendar_date(year.into(), month, u8::try_from(day).ok()?).ok()?;
    let days = u64::try_from(date.to_julian_day() - 2_440_588).ok()?;
    let (clock, ms) = clock.split_once('.').unwrap_or((clock, "000"));
    let mut clock = clock.splitn(3, ':').map(str::parse::<u64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let ms = u64::from(format!("{ms:0<3}").parse::<u16>().ok()?);
    let is_clock = hour < 24 && minute < 60 && second < 60 && ms < 1_000;
    let s = days * 86_400 + hour * 3_600 + minute * 60 + second;
    is_clock.then_some(TimeMs(s * 1_000 + ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_the_databases_read_them() {
        let shown = |ms| sql_time(TimeMs(ms));
        assert_eq!(shown(0), "1970-01-01 00:00:00.000");
        assert_eq!(shown(1_795_462_200_123), "2026-11-23 19:30:00.123");
        assert_eq!(shown(951_826_554_007), "2000-02-29 12:15:54.007");
        assert_eq!(shown(u64::MAX), "9999-12-31 23:59:59.999");
        for ms in (0..TIME_MS_MAX).step_by(86_400_000 * 97 + 12_345) {
            assert_eq!(read_time(&shown(ms)), Some(TimeMs(ms)));
        }
        for text in ["", "2026-11-23", "2026-13-01 00:00:00.000", "2026-11-23 24:00:00", "x y"] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }
}
