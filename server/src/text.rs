//! Ids, numbers and times as clients see them.

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tmomi_engine::ids::{Epoch, HoldId, HoldSlot, Seq, TimeMs};

/// The last millisecond of the year 9999, after which RFC 3339 has no name for a time.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// A time as RFC 3339 writes it, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct When(pub(crate) TimeMs);

impl When {
    /// Writes it as `time` does; but every hold has one, and the general way takes ten times as
    /// long.
    pub(crate) fn push(self, text: &mut String) {
        let ms = self.0.0.min(TIME_MS_MAX);
        let time = OffsetDateTime::from_unix_timestamp((ms / 1_000) as i64);
        let time = time.expect("the year has four digits");
        let (year, month, day) = time.to_calendar_date();
        let (hour, minute, second) = time.to_hms();
        let mut written = *b"0000-00-00T00:00:00.000";
        put_digits(&mut written[..4], year as u32);
        let twos = [u8::from(month), day, hour, minute, second];
        for (n, two) in twos.into_iter().enumerate() {
            put_digits(&mut written[5 + 3 * n..][..2], two.into());
        }
        let fraction = (ms % 1_000) as u32;
        put_digits(&mut written[20..], fraction);
        let digits = match fraction {
            0 => "YYYY-MM-DDThh:mm:ss".len(),
            _ if fraction.is_multiple_of(100) => written.len() - 2,
            _ if fraction.is_multiple_of(10) => written.len() - 1,
            _ => written.len(),
        };
        // At once: a character at a time each looks for room.
        text.push_str(std::str::from_utf8(&written[..digits]).expect("digits and marks"));
        text.push('Z');
    }

    fn text(self) -> String {
        let mut text = String::with_capacity("2030-01-31T19:30:00.000Z".len());
        self.push(&mut text);
        text
    }
}

/// Fills `digits` with a number's decimal digits, zeros before them.
fn put_digits(digits: &mut [u8], mut number: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl std::str::FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<When, &'static str> {
        let time = OffsetDateTime::parse(text, &Rfc3339);
        let time = time.map_err(|_| "must be a time like 2030-01-31T19:30:00Z (RFC 3339)")?;
        let ms = u64::try_from(time.unix_timestamp_nanos() / 1_000_000);
        let ms = ms.ok().filter(|ms| *ms <= TIME_MS_MAX).ok_or("must be from 1970 to 9999")?;
        Ok(When(TimeMs(ms)))
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<When, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for When {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl utoipa::ToSchema for When {}

/// Tells a member that is missing from one that is null: for `#[serde(default,
/// deserialize_with = "nullable")]` on an `Option<Option<T>>`.
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// An event's number: `"<epoch>-<sequence>"`.
pub(crate) fn seq_text(epoch: Epoch, seq: Seq) -> String {
    let mut text = String::with_capacity(24);
    push_seq(&mut text, epoch, seq);
    text
}

/// Writes it behind what is in `text`.
pub(crate) fn push_seq(text: &mut String, epoch: Epoch, seq: Seq) {
    text.push_str(itoa::Buffer::new().format(epoch.0));
    text.push('-');
    text.push_str(itoa::Buffer::new().format(seq.0));
}

/// Reads an event's number as [`seq_text`] writes it. The sequence goes on counting across
/// epochs, so a plain number is understood, too.
pub(crate) fn parse_seq(text: &str) -> Option<(Option<Epoch>, Seq)> {
    match text.split_once('-') {
        Some((epoch, seq)) => {
            let epoch = u32::try_from(decimal(epoch)?).ok()?;
            Some((Some(Epoch(epoch)), Seq(decimal(seq)?)))
        }
        None => decimal(text).map(|seq| (None, Seq(seq))),
    }
}

fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The id of a hold.
pub(crate) fn hold_text(id: HoldId) -> String {
    id_text('h', id)
}

/// Writes the id of a hold behind what is in `text`.
pub(crate) fn push_hold(text: &mut String, id: HoldId) {
    push_id(text, 'h', id);
}

/// The id of an order: the order of a hold has the hold's numbers.
pub(crate) fn order_text(id: HoldId) -> String {
    id_text('o', id)
}

/// The id of the ticket for the `index`th seat (from 0) of an order.
pub(crate) fn ticket_text(order: HoldId, index: usize) -> String {
    format!("{}-{index:x}", id_text('t', order))
}

/// Reads the id of a hold.
pub(crate) fn parse_hold(text: &str) -> Option<HoldId> {
    parse_id('h', text)
}

/// Reads the id of an order.
pub(crate) fn parse_order(text: &str) -> Option<HoldId> {
    parse_id('o', text)
}

/// Reads the id of a ticket: its order, and the place of its seat there.
pub(crate) fn parse_ticket(text: &str) -> Option<(HoldId, usize)> {
    let (order, index) = text.rsplit_once('-')?;
    Some((parse_id('t', order)?, usize::try_from(hex(index)?).ok()?))
}

fn id_text(kind: char, id: HoldId) -> String {
    let mut text = String::with_capacity(24);
    push_id(&mut text, kind, id);
    text
}

fn push_id(text: &mut String, kind: char, id: HoldId) {
    text.push(kind);
    for number in [id.seq.0, id.slot.0.into()] {
        text.push('-');
        push_hex(text, number);
    }
}

fn push_hex(text: &mut String, number: u64) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let digit = (number >> (digit * 4) & 15) as u32;
        text.push(char::from_digit(digit, 16).expect("below 16"));
    }
}

fn parse_id(kind: char, text: &str) -> Option<HoldId> {
    let (seq, slot) = text.strip_prefix(kind)?.strip_prefix('-')?.split_once('-')?;
    let slot = u32::try_from(hex(slot)?).ok()?;
    Some(HoldId { slot: HoldSlot(slot), seq: Seq(hex(seq)?) })
}

/// A number in the one spelling that we write: lower case, no sign, no leading zero.
fn hex(text: &str) -> Option<u64> {
    let number = u64::from_str_radix(text, 16).ok()?;
    (format!("{number:x}") == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_any_zone_and_written_in_utc() {
        let read = |text: &str| text.parse::<When>().map(|when| when.to_string());
        assert_eq!(read("2030-01-31T19:30:00+09:00").as_deref(), Ok("2030-01-31T10:30:00Z"));
        assert_eq!(read("2030-01-31T10:30:00.25Z").as_deref(), Ok("2030-01-31T10:30:00.25Z"));
        for text in ["", "2030-01-31", "2030-13-31T10:30:00Z", "1969-12-31T23:59:59Z", "7"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(When(TimeMs(u64::MAX)).to_string(), "9999-12-31T23:59:59.999Z");
    }

    /// Planted bug: the zeros at the end of the seconds go, too.
    #[test]
    fn a_time_is_written_as_everybody_writes_it() {
        let days = (0..30_000).map(|day| day * 86_400_000 + day * 997);
        for ms in days.chain([0, 1, 10, 100, 120, 999, 1_000, 10_000, 951_782_400_000]) {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
            let time = time.expect("a year with four digits");
            let written = time.format(&Rfc3339).expect("a year with four digits");
            assert_eq!(When(TimeMs(ms)).to_string(), written);
        }
    }

    #[test]
    fn an_id_has_one_spelling() {
        for number in [0, 1, 15, 16, 0x0102_0304_0506_0708, u64::MAX] {
            let id = HoldId { slot: HoldSlot(number as u32), seq: Seq(number) };
            assert_eq!(hold_text(id), format!("h-{number:x}-{:x}", number as u32));
        }
        let id = HoldId { slot: HoldSlot(26), seq: Seq(1_000) };
        assert_eq!(parse_hold(&hold_text(id)), Some(id));
        assert_eq!(parse_order(&order_text(id)), Some(id));
        assert_eq!(parse_ticket(&ticket_text(id, 11)), Some((id, 11)));
        for text in ["", "h", "h-3e8", "h-3E8-1a", "h-03e8-1a", "h-+3e8-1a", "o-3e8-1a", "h-3e8--1"]
        {
            assert_eq!(parse_hold(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_read_with_its_epoch_or_without() {
        assert_eq!(parse_seq(&seq_text(Epoch(3), Seq(9))), Some((Some(Epoch(3)), Seq(9))));
        assert_eq!(parse_seq("9"), Some((None, Seq(9))));
        for text in ["", "-", "3-", "-9", "+3-9", "3-9-1", "x"] {
            assert_eq!(parse_seq(text), None, "{text}");
        }
    }
}
