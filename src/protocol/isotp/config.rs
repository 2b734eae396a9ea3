//! How an endpoint is set up.

use std::time::Duration;

use super::Addressing;

/// The longest PDU accepted in either direction by default: 1 MiB.
pub const DEFAULT_MAX_PDU: usize = 1 << 20;
/// What frames are filled up with (ISO 15765-2, 10.4.2.1).
pub(super) const PADDING_BYTE: u8 = 0xCC;

/// How one [`Endpoint`](super::Endpoint) talks to its peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who the two sides are.
    pub addressing: Addressing,
    /// The frames we send; what we receive may have any size.
    pub frame_size: FrameSize,
    /// Whether short frames are filled up to 8 bytes; default enabled with 0xCC.
    pub padding: Padding,
    /// How many consecutive frames a sender may send us before it waits for a flow control; default 0, all of them.
    pub block_size: u8,
    /// The separation time asked of a sender; default none.
    pub st_min: SeparationTime,
    /// The longest PDU accepted in either direction, in bytes; default [`DEFAULT_MAX_PDU`].
    pub max_pdu: usize,
    /// N_WFTmax: how many flow controls that say wait are taken in a row; default 255, for ECUs that erase memory.
    pub max_wait_frames: u8,
    /// How many consecutive frames may be without outcome while the separation time is 0; default 4, at least 1.
    pub window: usize,
    /// The N_ timers; default 1000 ms each.
    pub timeouts: Timeouts,
}

impl Config {
    /// Everything as by default.
    pub fn new(addressing: Addressing) -> Self {
        Self {
            addressing,
            frame_size: FrameSize::Classic,
            padding: Padding::default(),
            block_size: 0,
            st_min: SeparationTime::default(),
            max_pdu: DEFAULT_MAX_PDU,
            max_wait_frames: u8::MAX,
            window: 4,
            timeouts: Timeouts::default(),
        }
    }
}

/// Whether frames are filled up to 8 bytes.
///
/// FD frames above 8 bytes are filled up to the next length that exists in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Every frame has at least 8 bytes, filled up with this one.
    Enabled(u8),
    /// Frames are as short as their content.
    Disabled,
    /// As the peer does it; filled up with this byte until a frame of the peer shows that it does not do so.
    ///
    /// More ECUs are deaf to short frames than to filled ones, hence the beginning.
    Detection(u8),
}

/// Enabled, with 0xCC.
impl Default for Padding {
    fn default() -> Self {
        Self::Enabled(PADDING_BYTE)
    }
}

/// The frames sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameSize {
    /// Classic frames of 8 bytes.
    #[default]
    Classic,
    /// FD frames; make it by [`FrameSize::fd`].
    Fd {
        /// TX_DL, the longest data field: 8, 12, 16, 20, 24, 32, 48 or 64. Anything else counts as the next below.
        tx_dl: u8,
        /// Whether the data phase is sent at the data bit rate.
        bit_rate_switch: bool,
    },
}

/// A number that is no TX_DL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no FD frame size for ISO-TP; it is 8, 12, 16, 20, 24, 32, 48 or 64")]
pub struct FrameSizeError(pub u8);

impl FrameSize {
    /// FD frames of up to `tx_dl` bytes; an error unless that is a TX_DL of ISO 15765-2.
    pub fn fd(tx_dl: u8, bit_rate_switch: bool) -> Result<Self, FrameSizeError> {
        let size = Self::Fd { tx_dl, bit_rate_switch };
        if size.tx_dl() == usize::from(tx_dl) { Ok(size) } else { Err(FrameSizeError(tx_dl)) }
    }

    /// The longest data field, in bytes.
    pub fn tx_dl(self) -> usize {
        match self {
            Self::Classic => 8,
            Self::Fd { tx_dl, .. } => match tx_dl {
                0..12 => 8,
                12..16 => 12,
                16..20 => 16,
                20..24 => 20,
                24..32 => 24,
                32..48 => 32,
                48..64 => 48,
                64.. => 64,
            },
        }
    }
}

/// STmin, the time a sender leaves between two consecutive frames, as on the wire (ISO 15765-2, 9.6.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeparationTime(pub u8);

impl SeparationTime {
    /// The time: 0…127 ms, or 100…900 µs; a reserved code counts as 127 ms.
    pub fn to_duration(self) -> Duration {
        match self.0 {
            code @ 0..=0x7F => Duration::from_millis(code.into()),
            code @ 0xF1..=0xF9 => Duration::from_micros(u64::from(code - 0xF0) * 100),
            _ => Duration::from_millis(127),
        }
    }
}

/// How long to wait for what (ISO 15765-2, 9.8); the ones that are not here are limits to ourselves, and we never wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the acknowledgement of a frame of ours while sending.
    pub n_as: Duration,
    /// For the acknowledgement of a flow control of ours.
    pub n_ar: Duration,
    /// For the peer's flow control.
    pub n_bs: Duration,
    /// For the peer's next consecutive frame.
    pub n_cr: Duration,
}

/// 1000 ms each.
impl Default for Timeouts {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { n_as: second, n_ar: second, n_bs: second, n_cr: second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separation_times_are_milliseconds_or_hundreds_of_microseconds_and_else_127_ms() {
        for code in 0..=0xFF {
            let expected = match code {
                0..=0x7F => Duration::from_millis(code.into()),
                0xF1 => Duration::from_micros(100),
                0xF2 => Duration::from_micros(200),
                0xF3..=0xF8 => Duration::from_micros((u64::from(code) - 0xF0) * 100),
                0xF9 => Duration::from_micros(900),
                0x80..=0xF0 | 0xFA..=0xFF => Duration::from_millis(127),
            };
            assert_eq!(SeparationTime(code).to_duration(), expected, "0x{code:02X}");
        }
    }

    #[test]
    fn only_lengths_of_fd_frames_from_eight_on_are_frame_sizes() {
        for tx_dl in 0..=u8::MAX {
            let allowed = [8, 12, 16, 20, 24, 32, 48, 64].contains(&tx_dl);
            assert_eq!(FrameSize::fd(tx_dl, true).is_ok(), allowed, "{tx_dl}");
            let used = FrameSize::Fd { tx_dl, bit_rate_switch: true }.tx_dl();
            assert!(used <= usize::from(tx_dl).max(8), "{tx_dl}: {used}");
        }
        assert_eq!(FrameSize::fd(9, false), Err(FrameSizeError(9)));
    }
}
