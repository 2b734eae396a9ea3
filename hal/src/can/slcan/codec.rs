//! Lines of the SLCAN protocol: Lawicel's commands, the common FD extensions, and the state reports of
//! Linux's slcan driver.
//!
//! | line | from host | from adapter |
//! |---|---|---|
//! | `tIIILDD…` `TIIIIIIIILDD…` | sends a data frame with 11 or 29 bits of identifier | a received frame |
//! | `rIIIL` `RIIIIIIIIL` | sends a remote frame | a received frame |
//! | `d` `D`, `b` `B` | sends an FD frame without or with BRS, with its DLC | a received frame |
//! | `S0`…`S9`, `Y0`…`Y8`, `s…` | sets the bit rate, the data bit rate, raw bit timing | |
//! | `O`, `L`, `C` | joins the bus, listens only, leaves the bus | |
//! | `Z0`, `Z1` | switches the time stamps of received frames off or on | |
//! | `z`, `Z` | | a frame was sent |
//! | `F`, `V`, `N` | requests status flags, version, serial number | `Fxx`, `Vxxxx`, `Nxxxx` |
//! | `sb000255`, `e1c` | | controller state with receive and transmit error counters; bus errors |
//!
//! A line ends with CR. An adapter answers a command with a bare CR (accepted) or BEL (refused).

use std::fmt;

use super::values::STATES;
pub use super::values::{BusErrors, ControllerState, StatusFlags};
use crate::can::{CanFrame, CanId, FdFlags, FrameKind, fd_length};

/// Ends a line. Alone, it is an adapter's acceptance of a command.
pub(super) const CR: u8 = b'\r';
/// An adapter's refusal of a command.
pub(super) const BELL: u8 = 0x07;
/// The longest accepted line, without its CR: an FD frame has 147 characters, and version texts may be long.
pub(super) const MAX_LINE: usize = 256;

/// A decoded line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlcanLine {
    /// An empty line: the adapter accepted a command.
    Done,
    /// BEL: the adapter refused a command.
    Refused,
    /// A data or remote frame, and the adapter's time stamp in ms (within 60 s, or free-running).
    Frame(CanFrame, Option<u32>),
    /// The adapter has sent the oldest frame that it holds.
    Transmitted {
        /// The frame has a 29-bit identifier (`Z`, not `z`).
        extended: bool,
    },
    /// Sets the bit rate by its number in SLCAN.
    SetBitRate(u8),
    /// Sets the data bit rate by its number in SLCAN.
    SetDataBitRate(u8),
    /// Sets raw bit timing registers; the number of digits gives the number of registers.
    SetBitTiming(u32),
    /// Joins the bus.
    Open,
    /// Joins the bus without acknowledging or sending.
    Listen,
    /// Leaves the bus.
    Close,
    /// Switches time stamps on or off.
    SetTimestamps(bool),
    /// Requests the status flags.
    ReadStatus,
    /// The status flags.
    Status(StatusFlags),
    /// Requests the version.
    ReadVersion,
    /// The version.
    Version(Box<str>),
    /// Requests the serial number.
    ReadSerialNumber,
    /// The serial number.
    SerialNumber(Box<str>),
    /// The controller's state.
    State {
        /// The state.
        state: ControllerState,
        /// The receive error counter.
        receive_errors: u16,
        /// The transmit error counter.
        transmit_errors: u16,
    },
    /// Errors on the bus.
    Errors(BusErrors),
    /// Any other line of text, by its first byte.
    Other(u8),
}

/// Why a line is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line has more than 256 characters.
    #[error("a line of more than {MAX_LINE} characters")]
    TooLong,
    /// The line has a character that no line has: line noise, or another baud rate.
    #[error("a line with the character 0x{0:02X}")]
    NotText(u8),
    /// The line is too short or too long.
    #[error("a `{}` line of {length} characters", char::from(*.command))]
    Length {
        /// The line's first character.
        command: u8,
        /// The length of the line.
        length: usize,
    },
    /// A character is in the place of a digit.
    #[error("`{}` in a `{}` line, where a digit should be", char::from(*.found), char::from(*.command))]
    Digit {
        /// The line's first character.
        command: u8,
        /// The character in the place of the digit.
        found: u8,
    },
    /// An identifier, a length or a state is out of range.
    #[error("a `{}` line with an impossible value", char::from(*.command))]
    Value {
        /// The line's first character.
        command: u8,
    },
}

/// Decodes a line without its CR; a lone BEL is a line too. Never panics on any input.
pub fn decode(line: &[u8]) -> Result<SlcanLine, LineError> {
    let Some((&command, rest)) = line.split_first() else { return Ok(SlcanLine::Done) };
    if line == [BELL] {
        return Ok(SlcanLine::Refused);
    }
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    if let Some(strange) = find_strange(line) {
        return Err(LineError::NotText(strange));
    }
    let mut digits = Digits { command, length: line.len(), rest };
    let line = match command {
        b't' | b'T' | b'r' | b'R' | b'd' | b'D' | b'b' | b'B' => return decode_frame(digits),
        b'S' => SlcanLine::SetBitRate(digits.hex(1)? as u8),
        b'Y' => SlcanLine::SetDataBitRate(digits.hex(1)? as u8),
        b'O' => SlcanLine::Open,
        b'L' => SlcanLine::Listen,
        b'C' => SlcanLine::Close,
        b'z' => SlcanLine::Transmitted { extended: false },
        b'Z' if rest.is_empty() => SlcanLine::Transmitted { extended: true },
        b'Z' => SlcanLine::SetTimestamps(match digits.hex(1)? {
            0 => false,
            1 => true,
            _ => return Err(LineError::Value { command }),
        }),
        b'F' if rest.is_empty() => SlcanLine::ReadStatus,
        b'F' => SlcanLine::Status(StatusFlags(digits.hex(2)? as u8)),
        b'V' if rest.is_empty() => SlcanLine::ReadVersion,
        b'V' => SlcanLine::Version(digits.text()),
        b'N' if rest.is_empty() => SlcanLine::ReadSerialNumber,
        b'N' => SlcanLine::SerialNumber(digits.text()),
        b's' if rest.len() == 7 => return decode_state(digits),
        b's' => SlcanLine::SetBitTiming(digits.hex(rest.len().clamp(4, 8))?),
        b'e' => decode_errors(&mut digits)?,
        _ => return Ok(SlcanLine::Other(command)),
    };
    digits.end()?;
    Ok(line)
}

/// The first byte that no line has. Free text, such as a version, may have tabs and characters beyond ASCII.
pub(super) fn find_strange(line: &[u8]) -> Option<u8> {
    let (text, invalid) = match std::str::from_utf8(line) {
        Ok(text) => (text, None),
        Err(error) => {
            let (valid, invalid) = line.split_at_checked(error.valid_up_to())?;
            (std::str::from_utf8(valid).unwrap_or_default(), invalid.first().copied())
        }
    };
    let control = text.char_indices().find(|(_, character)| character.is_control() && *character != '\t');
    control.map_or(invalid, |(place, _)| line.get(place).copied())
}

fn decode_frame(mut digits: Digits<'_>) -> Result<SlcanLine, LineError> {
    let command = digits.command;
    let impossible = LineError::Value { command };
    let id = if command.is_ascii_uppercase() {
        CanId::extended(digits.hex(8)?)
    } else {
        CanId::standard(digits.hex(3)?)
    };
    let id = id.map_err(|_| impossible)?;
    let dlc = digits.hex(1)? as usize;
    let kind = command.to_ascii_lowercase();
    let len = match kind {
        b'd' | b'b' => length_of_dlc(dlc),
        _ => Some(dlc).filter(|dlc| *dlc <= 8),
    }
    .ok_or(impossible)?;
    let frame = if kind == b'r' {
        CanFrame::new_remote(id, len)
    } else {
        let mut data = [0; 64];
        let data = data.get_mut(..len).ok_or(impossible)?;
        for byte in data.iter_mut() {
            *byte = digits.hex(2)? as u8;
        }
        let flags = FdFlags { bit_rate_switch: kind == b'b', error_state: false };
        if kind == b't' { CanFrame::new(id, data) } else { CanFrame::new_fd(id, flags, data) }
    };
    let frame = frame.map_err(|_| impossible)?;
    // the manual defines 16 bits of milliseconds; some adapters send 32 bits
    let timestamp = match digits.rest.len() {
        0 => None,
        4 => Some(digits.hex(4)?),
        _ => Some(digits.hex(8)?),
    };
    digits.end()?;
    Ok(SlcanLine::Frame(frame, timestamp))
}

fn decode_state(mut digits: Digits<'_>) -> Result<SlcanLine, LineError> {
    let impossible = LineError::Value { command: digits.command };
    let letter = digits.take()?;
    let (_, state) = STATES.into_iter().find(|(known, _)| *known == letter).ok_or(impossible)?;
    let mut counter = || {
        let value = digits.hex(3)?;
        // three decimal digits
        let (hundreds, tens, ones) = (value >> 8, value >> 4 & 0xF, value & 0xF);
        if hundreds.max(tens).max(ones) > 9 {
            return Err(impossible);
        }
        Ok((hundreds * 100 + tens * 10 + ones) as u16)
    };
    let (receive_errors, transmit_errors) = (counter()?, counter()?);
    Ok(SlcanLine::State { state, receive_errors, transmit_errors })
}

fn decode_errors(digits: &mut Digits<'_>) -> Result<SlcanLine, LineError> {
    let mut errors = 0;
    for _ in 0..digits.hex(1)? {
        let letter = digits.take()?;
        let known = BusErrors::LETTERS.iter().position(|known| *known == letter);
        errors |= 1 << known.ok_or(LineError::Value { command: digits.command })?;
    }
    Ok(SlcanLine::Errors(BusErrors(errors)))
}

fn length_of_dlc(dlc: usize) -> Option<usize> {
    Some(match dlc {
        0..=8 => dlc,
        9..=12 => 12 + (dlc - 9) * 4,
        13 => 32,
        14 => 48,
        15 => 64,
        _ => return None,
    })
}

fn dlc_of_length(len: usize) -> usize {
    let shortest = fd_length(len).unwrap_or(64);
    (0..=15).find(|dlc| length_of_dlc(*dlc) == Some(shortest)).unwrap_or(15)
}

/// The part of a line that has not been decoded yet.
struct Digits<'a> {
    command: u8,
    length: usize,
    rest: &'a [u8],
}

impl Digits<'_> {
    fn take(&mut self) -> Result<u8, LineError> {
        let (&first, rest) = self.rest.split_first().ok_or(self.wrong_length())?;
        self.rest = rest;
        Ok(first)
    }

    /// Takes a number of at most 8 hexadecimal digits.
    fn hex(&mut self, digits: usize) -> Result<u32, LineError> {
        let mut value = 0;
        for _ in 0..digits {
            let found = self.take()?;
            let digit = char::from(found).to_digit(16);
            value = value << 4 | digit.ok_or(LineError::Digit { command: self.command, found })?;
        }
        Ok(value)
    }

    fn text(&mut self) -> Box<str> {
        String::from_utf8_lossy(std::mem::take(&mut self.rest)).into()
    }

    fn end(&self) -> Result<(), LineError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong_length()) }
    }

    fn wrong_length(&self) -> LineError {
        LineError::Length { command: self.command, length: self.length }
    }
}

impl SlcanLine {
    /// Appends the encoded line with its CR. Error frames and [`SlcanLine::Other`] have no encoding: they
    /// become an empty line, which every receiver ignores.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if *self == Self::Refused {
            return out.push(BELL);
        }
        // writing to memory cannot fail
        let _ = self.write(&mut Ascii(out));
        out.push(CR);
    }

    fn write(&self, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Done | Self::Refused | Self::Other(_) => Ok(()),
            Self::Frame(frame, timestamp) => {
                write_frame(frame, out)?;
                match timestamp {
                    None => Ok(()),
                    Some(timestamp) if *timestamp <= 0xFFFF => write!(out, "{timestamp:04X}"),
                    Some(timestamp) => write!(out, "{timestamp:08X}"),
                }
            }
            Self::Transmitted { extended } => out.write_str(if *extended { "Z" } else { "z" }),
            Self::SetBitRate(number) => write!(out, "S{number:X}"),
            Self::SetDataBitRate(number) => write!(out, "Y{number:X}"),
            Self::SetBitTiming(registers @ 0..=0xFFFF) => write!(out, "s{registers:04X}"),
            // never 7 digits, which would be decoded as a state
            Self::SetBitTiming(registers) => write!(out, "s{registers:08X}"),
            Self::Open => out.write_str("O"),
            Self::Listen => out.write_str("L"),
            Self::Close => out.write_str("C"),
            Self::SetTimestamps(on) => write!(out, "Z{}", u8::from(*on)),
            Self::ReadStatus => out.write_str("F"),
            Self::Status(flags) => write!(out, "F{:02X}", flags.0),
            Self::ReadVersion => out.write_str("V"),
            Self::Version(text) => write!(out, "V{text}"),
            Self::ReadSerialNumber => out.write_str("N"),
            Self::SerialNumber(text) => write!(out, "N{text}"),
            Self::State { state, receive_errors, transmit_errors } => {
                let letter =
                    STATES.iter().find(|(_, known)| known == state).map_or(b'f', |(letter, _)| *letter);
                let (receive, transmit) = (receive_errors.min(&999), transmit_errors.min(&999));
                write!(out, "s{}{receive:03}{transmit:03}", char::from(letter))
            }
            Self::Errors(errors) => {
                write!(out, "e{}", errors.0.count_ones())?;
                let letters = BusErrors::LETTERS.iter().enumerate();
                letters
                    .filter(|(place, _)| errors.0 >> place & 1 == 1)
                    .try_for_each(|(_, letter)| out.write_char(char::from(*letter)))
            }
        }
    }
}

fn write_frame(frame: &CanFrame, out: &mut impl fmt::Write) -> fmt::Result {
    let letter = match frame.kind() {
        FrameKind::Error { .. } => return Ok(()),
        FrameKind::Data => 't',
        FrameKind::Remote => 'r',
        FrameKind::Fd(flags) if flags.bit_rate_switch => 'b',
        FrameKind::Fd(_) => 'd',
    };
    let id = frame.id();
    if id.is_extended() {
        write!(out, "{}{:08X}", letter.to_ascii_uppercase(), id.raw())?;
    } else {
        write!(out, "{letter}{:03X}", id.raw())?;
    }
    write!(out, "{:X}", dlc_of_length(frame.len()))?;
    frame.data().iter().try_for_each(|byte| write!(out, "{byte:02X}"))
}

struct Ascii<'a>(&'a mut Vec<u8>);

impl fmt::Write for Ascii<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
