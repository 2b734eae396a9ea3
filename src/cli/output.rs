//! What commands print. A reader that has gone, as in `connector-agent check | head -1`, loses the rest; the command does
//! its work and ends with its status all the same.

use std::fmt;
use std::io::{self, IsTerminal};

/// Prints a line to standard output, with the arguments of `format!`.
#[macro_export]
macro_rules! print_line {
    ($($arguments:tt)*) => {
        $crate::cli::write_line(&mut std::io::stdout(), format_args!($($arguments)*))
    };
}

/// Prints a line to standard error, with the arguments of `format!`.
#[macro_export]
macro_rules! print_error_line {
    ($($arguments:tt)*) => {
        $crate::cli::write_line(&mut std::io::stderr(), format_args!($($arguments)*))
    };
}

/// Writes a line. A reader that has gone is no error.
#[doc(hidden)]
pub fn write_line(out: &mut impl io::Write, line: fmt::Arguments<'_>) {
    let _read_or_not = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Whether texts for this stream may have colours: it is a terminal, and the variable `NO_COLOR` is not set
/// (<https://no-color.org>).
pub fn has_colors(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_no_one_can_read_is_no_panic() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        write_line(&mut writer, format_args!("{}", 1));
    }
}
