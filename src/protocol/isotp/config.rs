//! Configuration of an endpoint.

use std::time::Duration;

use super::Addressing;

/// Default of the longest PDU in either direction: 1 MiB, the longest PDU that the relay accepts. ISO 15765-2
/// allows 4 GiB, which no connector can hold.
pub(super) const DEFAULT_MAX_PDU: usize = 1 << 20;
/// Default padding byte (ISO 15765-2, 10.4.2.1).
pub(super) const PADDING_BYTE: u8 = 0xCC;

/// Configuration of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Identifiers and address bytes of the two peers.
    pub addressing: Addressing,
    /// Type and size of the frames to send. Flow control has the type of the frame that it answers. Received frames
    /// may have any type and size.
    pub frame_size: FrameSize,
    /// Padding of short frames to 8 bytes; by default enabled with 0xCC.
    pub padding: Padding,
    /// Number of consecutive frames that the peer may send before it waits for a flow control; by default 0,
    /// no limit.
    pub block_size: u8,
    /// Separation time that the peer is asked to keep; by default none.
    pub st_min: SeparationTime,
    /// Longest PDU accepted in either direction, in bytes; by default 1 MiB.
    pub max_pdu: usize,
    /// N_WFTmax: number of consecutive flow controls with status "wait" that are accepted.
    ///
    /// The default is 255, for ECUs that erase memory.
    pub max_wait_frames: u8,
    /// Number of consecutive frames that may be without outcome while the separation time is 0; by default 4,
    /// at least 1.
    pub window: usize,
    /// The N_ timers; by default 1000 ms each.
    pub timeouts: Timeouts,
}

impl Config {
    /// Creates a configuration with all defaults.
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

/// Padding of short frames to 8 bytes.
///
/// FD frames of more than 8 bytes are always padded to the next length that CAN FD has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Every frame is padded to at least 8 bytes with this byte.
    Enabled(u8),
    /// Frames are not padded.
    Disabled,
    /// Frames are padded with this byte until a frame of the peer shows that the peer does not pad.
    ///
    /// More ECUs ignore short frames than padded ones, so padding comes first.
    Detection(u8),
}

/// Padding is enabled, with 0xCC.
impl Default for Padding {
    fn default() -> Self {
        Self::Enabled(PADDING_BYTE)
    }
}

/// Type and size of sent frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FrameSize {
    /// Classic frames of 8 bytes.
    #[default]
    Classic,
    /// FD frames; [`FrameSize::fd`] creates this variant and checks the size.
    Fd {
        /// TX_DL, the longest data field: 8, 12, 16, 20, 24, 32, 48 or 64 bytes. Any other value counts as
        /// the next smaller one.
        tx_dl: u8,
        /// Whether the data phase uses the data bit rate.
        bit_rate_switch: bool,
    },
}

/// A number that is not a valid TX_DL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an FD frame size for ISO-TP; valid sizes are 8, 12, 16, 20, 24, 32, 48 and 64")]
pub struct FrameSizeError(pub u8);

impl FrameSize {
    /// FD frames of up to `tx_dl` bytes.
    ///
    /// # Errors
    ///
    /// `tx_dl` is not a TX_DL of ISO 15765-2.
    pub fn fd(tx_dl: u8, bit_rate_switch: bool) -> Result<Self, FrameSizeError> {
        let size = Self::Fd { tx_dl, bit_rate_switch };
        if size.tx_dl() == usize::from(tx_dl) { Ok(size) } else { Err(FrameSizeError(tx_dl)) }
    }

    /// FD frames of up to 8 bytes.
    pub(super) fn fd_short(bit_rate_switch: bool) -> Self {
        Self::Fd { tx_dl: 8, bit_rate_switch }
    }

    /// Returns the longest data field, in bytes.
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

/// STmin, the minimum time between two consecutive frames, as encoded on the wire (ISO 15765-2, 9.6.5.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeparationTime(pub u8);

impl SeparationTime {
    /// Returns the time: 0…127 ms or 100…900 µs. A reserved code counts as 127 ms.
    pub(crate) fn to_duration(self) -> Duration {
        match self.0 {
            code @ 0..=0x7F => Duration::from_millis(code.into()),
            code @ 0xF1..=0xF9 => Duration::from_micros(u64::from(code - 0xF0) * 100),
            _ => Duration::from_millis(127),
        }
    }
}

/// Timeouts of an endpoint (ISO 15765-2, 9.8).
///
/// The standard's other times limit how long this side may take, and this side never waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// N_As: until a frame of a PDU being sent is acknowledged on the bus.
    pub n_as: Duration,
    /// N_Ar: until a flow control is acknowledged on the bus.
    pub n_ar: Duration,
    /// N_Bs: until the peer's flow control arrives.
    pub n_bs: Duration,
    /// N_Cr: until the peer's next consecutive frame arrives.
    pub n_cr: Duration,
}

/// All timeouts are 1000 ms.
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
    fn separation_times_decode_to_ms_or_100_us_and_reserved_to_127_ms() {
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
