//! Recordings of CAN frames in the format of `candump -L`, one frame per line:
//! `(1539006519.395399) can0 710#0210035555555555`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use connector_hal::can::{CanFrame, CanId, FdFlags, FrameError};

use connector_operator::hex::{self, HexError};

/// SocketCAN's flag for an error frame in a 32-bit identifier.
const ERR_FLAG: u32 = 0x2000_0000;

/// A frame, its time and its bus. Prints as a line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The time since the epoch of the program that wrote the log.
    pub time: Duration,
    /// The name of the interface, without spaces.
    pub interface: String,
    /// The frame.
    pub frame: CanFrame,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, interface, frame } = self;
        write!(f, "({:010}.{:06}) {interface} {frame}", time.as_secs(), time.subsec_micros())
    }
}

/// A line that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {source}")]
pub struct CandumpError {
    /// The line, counted from 1.
    pub line: usize,
    /// The reason.
    pub source: RecordError,
}

/// The reasons why a line cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The line does not have three fields.
    #[error("a record is `(seconds.microseconds) interface frame`")]
    Fields,
    /// The time is not of the form `(seconds.microseconds)`.
    #[error("`{0}` is not a time; write (1539006519.395399)")]
    Time(String),
    /// The identifier is not followed by `#`.
    #[error("`{0}` is not a frame; write 7E8#0210, 18DAF110#R4 or 7E8##1AABB")]
    Frame(String),
    /// The identifier does not have 3 or 8 hex digits.
    #[error("`{0}` is not an identifier; write 3 or 8 hex digits")]
    Identifier(String),
    /// The data is not hex.
    #[error(transparent)]
    Data(#[from] HexError),
    /// No frame of this kind can have that much data.
    #[error(transparent)]
    Length(#[from] FrameError),
}

/// Parses a log. Skips empty lines and lines that begin with `#`.
pub fn parse(text: &str) -> Result<Vec<Record>, CandumpError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(index, line)| line.parse().map_err(|source| CandumpError { line: index + 1, source }))
        .collect()
}

impl FromStr for Record {
    type Err = RecordError;

    fn from_str(line: &str) -> Result<Self, RecordError> {
        let mut fields = line.split_whitespace();
        let (Some(time), Some(interface), Some(frame)) = (fields.next(), fields.next(), fields.next()) else {
            return Err(RecordError::Fields);
        };
        // candump -x appends a letter for the direction
        if !matches!((fields.next(), fields.next()), (None | Some("R" | "T"), None)) {
            return Err(RecordError::Fields);
        }
        let time = parse_time(time).ok_or_else(|| RecordError::Time(time.to_owned()))?;
        Ok(Self { time, interface: interface.to_owned(), frame: parse_frame(frame)? })
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (seconds, fraction) = text.strip_prefix('(')?.strip_suffix(')')?.split_once('.')?;
    if !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(seconds.parse().ok()?, nanoseconds))
}

/// Parses a frame in candump's short form, in which frames also print.
fn parse_frame(text: &str) -> Result<CanFrame, RecordError> {
    let (id, content) = text.split_once('#').ok_or_else(|| RecordError::Frame(text.to_owned()))?;
    let wrong_id = || RecordError::Identifier(id.to_owned());
    // from_str_radix would accept a sign
    let number = id.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(id, 16).ok());
    let number = number.flatten().ok_or_else(wrong_id)?;
    let id = match id.len() {
        3 => CanId::standard(number).map_err(|_| wrong_id())?,
        8 if number & ERR_FLAG != 0 && number & !(ERR_FLAG | 0x1FFF_FFFF) == 0 => {
            let detail = hex::parse(content)?;
            let detail = <[u8; 8]>::try_from(detail.as_slice())
                .map_err(|_| FrameError::Length { len: detail.len(), kind: "error" })?;
            return Ok(CanFrame::new_error(number & !ERR_FLAG, detail));
        }
        8 => CanId::extended(number).map_err(|_| wrong_id())?,
        _ => return Err(wrong_id()),
    };
    if let Some(length) = content.strip_prefix('R') {
        let wrong = || RecordError::Frame(text.to_owned());
        let length = if length.is_empty() { 0 } else { length.parse::<u8>().map_err(|_| wrong())? };
        return Ok(CanFrame::new_remote(id, length.into())?);
    }
    if let Some(fd) = content.strip_prefix('#') {
        let flags = fd.chars().next().and_then(|digit| digit.to_digit(16));
        let (Some(flags), Some(data)) = (flags, fd.get(1..)) else {
            return Err(RecordError::Frame(text.to_owned()));
        };
        let flags = FdFlags { bit_rate_switch: flags & 1 != 0, error_state: flags & 2 != 0 };
        return Ok(CanFrame::new_fd(id, flags, &hex::parse(data)?)?);
    }
    Ok(CanFrame::new(id, &hex::parse(content)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrong(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_kind_of_frame_is_read_and_written_back_the_same() {
        let log = "(1539006519.395399) can0 710#0210035555555555\n\
                   (0000000000.000001) slcan1 18DAF110#\n\
                   (0000000001.000000) can0 7E8#R4\n\
                   (0000000001.000000) can0 7E8#R\n\
                   (0000000001.000000) can0 7E8##10102030405060708090A0B0C\n\
                   (0000000001.500000) can0 20000044#0000000000000000\n";
        let records = parse(log).unwrap();
        assert_eq!(records.len(), 6);
        assert!(records[5].frame.is_error());
        let written: String = records.iter().map(|record| format!("{record}\n")).collect();
        assert_eq!(written, log);
    }

    #[test]
    fn comments_empty_lines_and_directions_are_recognised() {
        let records = parse("# a drive\n\n(1.5) can0 123#00 R\r\n").unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].time, Duration::from_millis(1500));
    }

    #[test]
    fn an_invalid_record_is_reported_with_its_line() {
        assert_eq!(
            wrong("(1.0) can0 123#00\n(1.0) can0"),
            "line 2: a record is `(seconds.microseconds) interface frame`"
        );
        assert_eq!(wrong("1.0 can0 123#00"), "line 1: `1.0` is not a time; write (1539006519.395399)");
        assert_eq!(wrong("(-1.0) can0 123#00"), "line 1: `(-1.0)` is not a time; write (1539006519.395399)");
        assert_eq!(
            wrong("(1.0) can0 123"),
            "line 1: `123` is not a frame; write 7E8#0210, 18DAF110#R4 or 7E8##1AABB"
        );
        assert_eq!(
            wrong("(1.0) can0 1234#00"),
            "line 1: `1234` is not an identifier; write 3 or 8 hex digits"
        );
        assert_eq!(wrong("(1.0) can0 800#00"), "line 1: `800` is not an identifier; write 3 or 8 hex digits");
        assert_eq!(wrong("(1.0) can0 123#001"), "line 1: an odd number of hex digits (3)");
        assert_eq!(wrong("(1.0) can0 123#000102030405060708"), "line 1: 9 bytes do not fit a classic frame");
        let nine = "00".repeat(9);
        assert_eq!(wrong(&format!("(1.0) can0 123##0{nine}")), "line 1: 9 bytes do not fit a FD frame");
    }

    proptest! {
        #[test]
        fn no_text_stops_the_reader(text in "[ -~\\n]{0,80}", line in "\\([0-9.]{0,12}\\) can0 [0-9A-FR#]{0,30}") {
            let _ = parse(&text);
            if let Ok(records) = parse(&line) {
                let again: Record = records[0].to_string().parse().unwrap();
                prop_assert_eq!(again.frame, records[0].frame);
            }
        }
    }
}
