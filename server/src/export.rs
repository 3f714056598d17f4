//! `tmomi export`: orders and tickets as lines of CSV or JSON.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tmomi_engine::ids::{ShowtimeId, TimeMs};
use tmomi_persist::writer::export::{self, ExportError, ExportedOrder, ExportedTicket};

use crate::cli::Failure;
use crate::config::Settings;
use crate::rows::Places;
use crate::text::{When, order_text, ticket_text};

/// What is to be exported, and how.
#[derive(Clone, Debug, Args)]
pub struct Export {
    /// Orders or tickets
    pub what: What,
    /// How a line looks
    #[arg(long, value_name = "FORMAT", default_value = "csv")]
    pub format: Format,
    /// Only those of this showtime
    #[arg(long, value_name = "ID")]
    pub showtime: Option<u32>,
    /// Write into this file, which is there when it is complete; else on standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// A line for each order, with the number of its tickets
    Orders,
    /// A line for each ticket
    Tickets,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// RFC 4180 with a header; lines end with LF, and null is an empty field without quotes
    Csv,
    /// One JSON object a line
    Jsonl,
}

/// Runs the command. A reader that goes away is not an error.
///
/// # Errors
///
/// [`Failure`].
pub(crate) fn run(settings: &Settings, wish: &Export) -> Result<(), Failure> {
    let places = Places::of(settings, &settings.data)?;
    places.must_exist()?;
    let done = match &wish.out {
        None => write(&places, wish, io::stdout().lock()),
        Some(path) => write_file(&places, wish, path),
    };
    match done {
        Err(ExportError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(ExportError::Output(error)) => {
            let path = wish.out.as_deref().unwrap_or(Path::new("standard output")).display();
            Err(Failure::Failed(format!("cannot write {path}: {error}")))
        }
        Err(ExportError::Open(error)) => Err(places.failed(&error)),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", places.rows))),
        Ok(()) => Ok(()),
    }
}

/// Whoever finds the file finds all of it, and only its owner does: it has names and payments.
fn write_file(places: &Places, wish: &Export, path: &Path) -> Result<(), ExportError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&partial);
    let file = file?;
    let written = write(places, wish, &file).and_then(|()| {
        file.sync_all()?;
        Ok(fs::rename(&partial, path)?)
    });
    if written.is_err() {
        // The error that is told is the first one.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write(places: &Places, wish: &Export, out: impl Write) -> Result<(), ExportError> {
    let out = BufWriter::with_capacity(1 << 16, out);
    let names = match wish.what {
        What::Orders => ORDER_FIELDS,
        What::Tickets => TICKET_FIELDS,
    };
    let mut lines = Lines { out, format: wish.format, names };
    lines.head()?;
    let showtime = wish.showtime.map(ShowtimeId);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match wish.what {
            What::Orders => {
                let each = &mut |order: ExportedOrder| lines.line(&order_fields(&order));
                export::orders(&places.rows, showtime, each).await
            }
            What::Tickets => {
                let each = &mut |ticket: ExportedTicket| lines.line(&ticket_fields(&ticket));
                export::tickets(&places.rows, showtime, each).await
            }
        }
    })?;
    Ok(lines.out.flush()?)
}

const ORDER_FIELDS: &[&str] = &[
    "order_id",
    "showtime_id",
    "user_id",
    "state",
    "ticket_count",
    "total",
    "currency",
    "payment_ref",
    "confirmed_at",
    "refunded_at",
];

fn order_fields(order: &ExportedOrder) -> [Field<'_>; 10] {
    [
        Field::Made(order_text(order.id)),
        Field::Number(order.showtime.0.into()),
        Field::Number(order.buyer.0),
        Field::Text(&order.state),
        Field::Number(order.tickets),
        Field::Number(order.total),
        Field::Text(&order.currency),
        order.payment_ref.as_deref().map_or(Field::Null, Field::Text),
        time(order.confirmed_at),
        time(order.refunded_at),
    ]
}

const TICKET_FIELDS: &[&str] = &[
    "ticket_id",
    "order_id",
    "showtime_id",
    "user_id",
    "seat",
    "tier",
    "price",
    "currency",
    "state",
];

fn ticket_fields(ticket: &ExportedTicket) -> [Field<'_>; 9] {
    [
        Field::Made(ticket_text(ticket.order, ticket.place)),
        Field::Made(order_text(ticket.order)),
        Field::Number(ticket.showtime.0.into()),
        Field::Number(ticket.buyer.0),
        Field::Text(&ticket.seat),
        Field::Text(&ticket.tier),
        Field::Number(ticket.price),
        Field::Text(&ticket.currency),
        Field::Text(&ticket.state),
    ]
}

fn time<'a>(at: Option<TimeMs>) -> Field<'a> {
    at.map_or(Field::Null, |at| Field::Made(When(at).to_string()))
}

/// A field of a line.
enum Field<'a> {
    Null,
    Number(u64),
    Text(&'a str),
    Made(String),
}

impl Field<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Field::Text(text) => Some(text),
            Field::Made(text) => Some(text),
            Field::Null | Field::Number(_) => None,
        }
    }
}

/// Lines of equal fields.
struct Lines<W> {
    out: W,
    format: Format,
    names: &'static [&'static str],
}

impl<W: Write> Lines<W> {
    fn head(&mut self) -> io::Result<()> {
        match self.format {
            Format::Csv => writeln!(self.out, "{}", self.names.join(",")),
            Format::Jsonl => Ok(()),
        }
    }

    fn line(&mut self, fields: &[Field<'_>]) -> io::Result<()> {
        match self.format {
            Format::Csv => self.csv(fields),
            Format::Jsonl => self.json(fields),
        }
    }

    fn csv(&mut self, fields: &[Field<'_>]) -> io::Result<()> {
        for (n, field) in fields.iter().enumerate() {
            self.out.write_all(if n > 0 { b"," } else { b"" })?;
            match (field, field.text()) {
                (Field::Number(number), _) => write!(self.out, "{number}")?,
                (_, None) => {}
                (_, Some(text)) if is_plain(text) => self.out.write_all(text.as_bytes())?,
                (_, Some(text)) => write!(self.out, "\"{}\"", text.replace('"', "\"\""))?,
            }
        }
        self.out.write_all(b"\n")
    }

    fn json(&mut self, fields: &[Field<'_>]) -> io::Result<()> {
        for (n, (name, field)) in self.names.iter().zip(fields).enumerate() {
            write!(self.out, "{}\"{name}\":", if n > 0 { "," } else { "{" })?;
            match (field, field.text()) {
                (Field::Number(number), _) => write!(self.out, "{number}")?,
                (_, Some(text)) => serde_json::to_writer(&mut self.out, text)?,
                (_, None) => self.out.write_all(b"null")?,
            }
        }
        self.out.write_all(b"}\n")
    }
}

/// Whether a field of CSV needs no quotes. Text without letters has them, so that it is not null.
fn is_plain(text: &str) -> bool {
    let marks = ['"', ',', '\n', '\r'];
    !text.is_empty() && !text.contains(marks) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(format: Format, fields: &[Field<'_>]) -> String {
        let mut lines = Lines { out: Vec::new(), format, names: &["a", "b", "c", "d"] };
        lines.head().expect("there is memory");
        lines.line(fields).expect("there is memory");
        String::from_utf8(lines.out).expect("text")
    }

    #[test]
    fn a_line_has_every_text_as_it_is() {
        let fields = [
            Field::Number(7),
            Field::Null,
            Field::Text("say \"1, 2\"\r\nnow"),
            Field::Text("=1+2"),
        ];
        let csv = lines(Format::Csv, &fields);
        assert_eq!(csv, "a,b,c,d\n7,,\"say \"\"1, 2\"\"\r\nnow\",=1+2\n");
        let json = lines(Format::Jsonl, &fields);
        let read: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        let expected = serde_json::json!({
            "a": 7, "b": null, "c": "say \"1, 2\"\r\nnow", "d": "=1+2",
        });
        assert_eq!(read, expected);
        let empty = [Field::Text(""), Field::Null, Field::Text(" x"), Field::Made("좌".into())];
        assert_eq!(lines(Format::Csv, &empty), "a,b,c,d\n\"\",,\" x\",좌\n");
    }
}
