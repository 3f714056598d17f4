//! Calls for admins: what is offered, and how its sale goes.

pub(crate) mod blocks;
pub(crate) mod events;
pub(crate) mod shows;
pub(crate) mod showtimes;
pub(crate) mod terms;
pub(crate) mod venues;

use crate::problem::{Problem, Result};

/// Characters of a name at most.
const NAME_CHARS_MAX: usize = 200;

/// Checks a name: 1 to 200 characters, no control characters, not only spaces.
pub(crate) fn check_name(name: &str, pointer: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(Problem::bad_field(pointer, "must not be empty"));
    }
    check_text(name, pointer, NAME_CHARS_MAX)?;
    if name.contains(['\n', '\t']) {
        return Err(Problem::bad_field(pointer, "must be one line"));
    }
    Ok(())
}

/// Checks a text: at most `chars_max` characters, and of the control characters only line feed
/// and tab, so that no terminal that shows it can be steered.
pub(crate) fn check_text(text: &str, pointer: &str, chars_max: usize) -> Result<()> {
    if text.chars().count() > chars_max {
        return Err(Problem::bad_field(pointer, format!("may have {chars_max} characters")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Problem::bad_field(pointer, "must have no control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_line_of_text() {
        assert!(check_name("예술의전당 '; DROP TABLE venues; --", "/name").is_ok());
        let long = "x".repeat(NAME_CHARS_MAX + 1);
        for name in ["", "  ", "a\nb", "\u{1b}[31mred", "a\u{0}b", &long] {
            assert!(check_name(name, "/name").is_err(), "{name:?}");
        }
        assert!(check_text("two\nlines", "/description", 20).is_ok());
    }
}
