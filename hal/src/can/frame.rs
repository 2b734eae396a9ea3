//! CAN frames: classic and FD data frames, remote frames, error frames (ISO 11898-1).

use std::fmt;

use super::CanId;

/// The longest data field of a classic frame, in bytes.
const MAX_CLASSIC_LEN: usize = 8;
/// The longest data field of an FD frame, in bytes.
pub const MAX_FD_LEN: usize = 64;

/// The flags of an FD frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FdFlags {
    /// BRS: the data phase is sent at the data bit rate.
    pub bit_rate_switch: bool,
    /// ESI: the sender is error passive.
    pub error_state: bool,
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A classic data frame, of at most 8 bytes.
    Data,
    /// A classic remote frame: it carries no data, and its length is the length that it requests.
    Remote,
    /// An FD data frame, of at most 64 bytes.
    Fd(FdFlags),
    /// An error frame as SocketCAN reports it: error classes, and 8 bytes of detail as data.
    Error {
        /// SocketCAN's error classes (`linux/can/error.h`), without the ERR flag.
        classes: u32,
    },
}

/// Why a frame is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More data than this kind of frame holds, or an FD length without a DLC.
    #[error("{len} bytes do not fit a {kind} frame")]
    Length {
        /// The length of the data, in bytes.
        len: usize,
        /// `classic`, `remote` or `FD`.
        kind: &'static str,
    },
}

/// A frame on a CAN bus, stored inline without allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CanFrame {
    id: CanId,
    kind: FrameKind,
    len: u8,
    data: [u8; MAX_FD_LEN],
}

impl CanFrame {
    /// Creates a classic data frame; an error above 8 bytes.
    pub fn new(id: CanId, data: &[u8]) -> Result<Self, FrameError> {
        if data.len() > MAX_CLASSIC_LEN {
            return Err(FrameError::Length { len: data.len(), kind: "classic" });
        }
        Self::build(id, FrameKind::Data, data)
    }

    /// Creates an FD frame; an error unless the length is 0…8, 12, 16, 20, 24, 32, 48 or 64 bytes.
    pub fn new_fd(id: CanId, flags: FdFlags, data: &[u8]) -> Result<Self, FrameError> {
        if fd_length(data.len()) != Some(data.len()) {
            return Err(FrameError::Length { len: data.len(), kind: "FD" });
        }
        Self::build(id, FrameKind::Fd(flags), data)
    }

    /// Creates a remote frame that requests `len` bytes; an error above 8.
    pub fn new_remote(id: CanId, len: usize) -> Result<Self, FrameError> {
        if len > MAX_CLASSIC_LEN {
            return Err(FrameError::Length { len, kind: "remote" });
        }
        Ok(Self { id, kind: FrameKind::Remote, len: len as u8, data: [0; MAX_FD_LEN] })
    }

    /// Creates an error frame with SocketCAN's classes and 8 bytes of detail.
    pub fn new_error(classes: u32, detail: [u8; 8]) -> Self {
        let mut data = [0; MAX_FD_LEN];
        for (to, from) in data.iter_mut().zip(detail) {
            *to = from;
        }
        let kind = FrameKind::Error { classes: classes & 0x1FFF_FFFF };
        Self { id: CanId::extended_truncated(classes), kind, len: 8, data }
    }

    fn build(id: CanId, kind: FrameKind, bytes: &[u8]) -> Result<Self, FrameError> {
        let mut data = [0; MAX_FD_LEN];
        match data.get_mut(..bytes.len()) {
            Some(to) => to.copy_from_slice(bytes),
            None => return Err(FrameError::Length { len: bytes.len(), kind: "FD" }),
        }
        Ok(Self { id, kind, len: bytes.len() as u8, data })
    }

    /// The identifier; for an error frame, the classes as a 29-bit number.
    pub fn id(&self) -> CanId {
        self.id
    }

    /// The kind of a frame.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The data; empty for a remote frame.
    pub fn data(&self) -> &[u8] {
        match self.kind {
            FrameKind::Remote => &[],
            _ => self.data.get(..usize::from(self.len)).unwrap_or(&[]),
        }
    }

    /// The length of the data, or the length that a remote frame requests, in bytes.
    #[allow(clippy::len_without_is_empty, reason = "a remote frame has a length, but no data")]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether the frame is an FD frame.
    pub fn is_fd(&self) -> bool {
        matches!(self.kind, FrameKind::Fd(_))
    }

    /// Whether the frame is a data frame, classic or FD.
    pub fn is_data(&self) -> bool {
        matches!(self.kind, FrameKind::Data | FrameKind::Fd(_))
    }

    /// Whether the frame is an error frame.
    pub fn is_error(&self) -> bool {
        matches!(self.kind, FrameKind::Error { .. })
    }
}

/// The length of the shortest FD data field that holds `len` bytes; `None` above 64.
pub fn fd_length(len: usize) -> Option<usize> {
    Some(match len {
        0..=8 => len,
        9..=12 => 12,
        13..=16 => 16,
        17..=20 => 20,
        21..=24 => 24,
        25..=32 => 32,
        33..=48 => 48,
        49..=64 => 64,
        _ => return None,
    })
}

/// Prints the frame in candump's short form: `7E8#0210035555555555`, `7E8#R4`, `7E8##1…`.
impl fmt::Display for CanFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FrameKind::Error { classes } => write!(f, "{:08X}", classes | 0x2000_0000)?,
            _ if self.id.is_extended() => write!(f, "{:08X}", self.id.raw())?,
            _ => write!(f, "{:03X}", self.id.raw())?,
        }
        match self.kind {
            FrameKind::Remote => {
                return if self.len == 0 { f.write_str("#R") } else { write!(f, "#R{}", self.len) };
            }
            FrameKind::Fd(flags) => {
                write!(f, "##{:X}", u8::from(flags.bit_rate_switch) | u8::from(flags.error_state) << 1)?;
            }
            FrameKind::Data | FrameKind::Error { .. } => f.write_str("#")?,
        }
        self.data().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for CanFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_fd_frame_takes_only_lengths_that_a_dlc_stands_for() {
        let id = CanId::standard(1).unwrap();
        for len in 0..=70 {
            let allowed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64].contains(&len);
            let frame = CanFrame::new_fd(id, FdFlags::default(), &vec![0xA5; len]);
            assert_eq!(frame.is_ok(), allowed, "{len} bytes");
        }
    }

    #[test]
    fn a_classic_frame_refuses_nine_bytes() {
        let id = CanId::standard(1).unwrap();
        assert_eq!(CanFrame::new(id, &[0; 9]), Err(FrameError::Length { len: 9, kind: "classic" }));
    }

    #[test]
    fn frames_print_as_candump_does() {
        let standard = CanId::standard(0x7E8).unwrap();
        let extended = CanId::extended(0x18DA_F110).unwrap();
        assert_eq!(CanFrame::new(standard, &[2, 0x10, 3]).unwrap().to_string(), "7E8#021003");
        assert_eq!(CanFrame::new_remote(extended, 4).unwrap().to_string(), "18DAF110#R4");
        let flags = FdFlags { bit_rate_switch: true, error_state: false };
        assert_eq!(CanFrame::new_fd(standard, flags, &[0xAB]).unwrap().to_string(), "7E8##1AB");
    }
}
