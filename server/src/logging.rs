//! Log lines: text or JSON, on standard error, without control characters and without secrets.
//!
//! Tokens, passwords and request bodies are never given to `tracing` in the first place. What a
//! client chose (a path, a name) goes through [`Plain`], so that it cannot forge a line or move
//! the cursor of whoever reads the log in a terminal.

use std::fmt::{self, Display, Write};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Shows a value with control and ANSI characters escaped, cut after [`PLAIN_CHARS_MAX`].
pub(crate) struct Plain<T>(pub(crate) T);

/// Characters of one value that reach a log line.
const PLAIN_CHARS_MAX: usize = 512;

impl<T: Display> Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape { out: f, left: PLAIN_CHARS_MAX }, "{}", self.0)
    }
}

struct Escape<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.left == 0 {
                return Ok(());
            }
            self.left -= 1;
            // Line and paragraph separators and the bidirectional marks are no control characters
            // to Rust, but a log reader obeys them.
            let risky = matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}');
            if c.is_control() || risky {
                write!(self.out, "{}", c.escape_unicode())?;
            } else {
                self.out.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Starts logging for the whole process. `filter` is what `RUST_LOG` would say. A second call
/// changes nothing.
///
/// # Errors
///
/// The filter's text, if it is not understood.
pub(crate) fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("{filter:?}: {error}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Another subscriber can only be there in a test, which then has its lines.
    let _ = match format {
        LogFormat::Text => log.with_ansi(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chose_cannot_forge_a_line() {
        let text = Plain("a\r\nINFO fake \u{1b}[2J\u{202e}b").to_string();
        assert_eq!(text, "a\\u{d}\\u{a}INFO fake \\u{1b}[2J\\u{202e}b");
        assert_eq!(Plain("x".repeat(9_999)).to_string().len(), PLAIN_CHARS_MAX);
    }
}
