//! JSON that grows at its end, for what is written so often that a general writer would be the
//! larger part of it: maps of seats, holds.

use std::fmt::Write;

/// The text so far. Whoever writes it keeps it JSON.
#[derive(Debug, Default)]
pub(crate) struct Json(pub(crate) String);

impl Json {
    /// Nothing, with room for `bytes`.
    pub(crate) fn with_capacity(bytes: usize) -> Json {
        Json(String::with_capacity(bytes))
    }

    /// Punctuation, names, and texts in which nothing is to be escaped.
    pub(crate) fn raw(&mut self, text: &str) -> &mut Json {
        self.0.push_str(text);
        self
    }

    /// A comma before every item but the first.
    pub(crate) fn comma(&mut self, item: usize) {
        if item > 0 {
            self.0.push(',');
        }
    }

    /// A whole number.
    pub(crate) fn number(&mut self, number: impl Into<u64>) -> &mut Json {
        let number: u64 = number.into();
        self.raw(itoa::Buffer::new().format(number))
    }

    /// Plans have only finite coordinates; a fraction of a thousandth is not to be seen.
    pub(crate) fn coordinate(&mut self, value: f32) {
        let rounded = (f64::from(value) * 1_000.0).round() / 1_000.0;
        write!(self.0, "{rounded}").expect("a String takes every write");
    }

    /// Any text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Json {
        self.0.push('"');
        // Most names are plain; only the others need a look at every character.
        if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.0.push_str(text);
        } else {
            let quoted = serde_json::to_string(text).expect("a text is JSON");
            self.0.push_str(&quoted[1..quoted.len() - 1]);
        }
        self.0.push('"');
        self
    }
}
