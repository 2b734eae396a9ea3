//! Checks whether the board matches its configuration.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::config::{BoardConfig, Source};
use super::pin::{find_line, read_number};

/// A part of the board that does not match the configuration.
#[derive(Debug)]
pub struct BoardProblem {
    /// The part: `voltage`, `ignition`, `button`, `led`, `buzzer` or `doip_activation`.
    pub part: &'static str,
    /// The configured file or device.
    pub path: PathBuf,
    /// The error on opening or reading it.
    pub error: io::Error,
    /// How to solve the problem.
    pub remedy: &'static str,
}

impl fmt::Display for BoardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "board.{}: {}: {}; {}", self.part, self.path.display(), self.error, self.remedy)
    }
}

/// Checks all parts and returns every problem. Opens files and devices only for the check.
pub(super) fn check(config: &BoardConfig) -> Vec<BoardProblem> {
    let mut problems = Vec::new();
    if let Some(voltage) = &config.voltage
        && let Err(error) = check_number(&voltage.file)
    {
        let remedy = "name a readable file of IIO (in_voltage*_raw) or hwmon (in*_input)";
        problems.push(BoardProblem { part: "voltage", path: voltage.file.clone(), error, remedy });
    }
    for (part, input) in [("ignition", &config.ignition), ("button", &config.button)] {
        let source = input.as_ref().map(|input| &input.source);
        problems.extend(source.and_then(|source| problem(part, source, check_number)));
    }
    let outputs =
        [("led", &config.led), ("buzzer", &config.buzzer), ("doip_activation", &config.doip_activation)];
    for (part, output) in outputs {
        let source = output.as_ref().map(|output| &output.source);
        problems.extend(source.and_then(|source| {
            problem(part, source, |path| std::fs::OpenOptions::new().write(true).open(path).map(|_| ()))
        }));
    }
    problems
}

/// Reads a number from a file. A pipe or a device may block, or have no end.
fn check_number(path: &Path) -> io::Result<()> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
    }
    read_number(path).map(|_| ())
}

fn problem(
    part: &'static str,
    source: &Source,
    check_file: impl Fn(&Path) -> io::Result<()>,
) -> Option<BoardProblem> {
    let (error, remedy) = match source {
        Source::Line { chip, line } => (
            find_line(chip, line).err()?,
            "name a chip and a line that `gpioinfo` lists, and permit the agent's user to open the chip",
        ),
        Source::File(path) => {
            (check_file(path).err()?, "name an existing file, and permit the agent's user to open it")
        }
    };
    Some(BoardProblem { part, path: path(source).to_owned(), error, remedy })
}

/// The file of a part, or the chip of its line.
pub(super) fn path(source: &Source) -> &Path {
    match source {
        Source::Line { chip, .. } => chip,
        Source::File(path) => path,
    }
}
