//! The content of one frame: protocol control information and data (ISO 15765-2, 9.5 and 9.6).

use super::SeparationTime;

/// Longest PDU whose length fits the 12 bits of a first frame.
pub(super) const MAX_SHORT_LENGTH: usize = 4095;
const CLASSIC: usize = 8;

/// One N_PDU, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NPdu<'a> {
    /// A complete PDU.
    SingleFrame {
        /// The PDU; never empty.
        data: &'a [u8],
    },
    /// The beginning of a PDU.
    FirstFrame {
        /// FF_DL, the length of the complete PDU, in bytes.
        length: u32,
        /// The first bytes of the PDU; fewer than `length`.
        data: &'a [u8],
    },
    /// The next segment of a PDU.
    ConsecutiveFrame {
        /// The sequence number, 0…15.
        sequence_number: u8,
        /// The segment, including padding; never empty.
        data: &'a [u8],
    },
    /// The receiver's permission to the sender.
    FlowControl {
        /// Whether the sender may continue.
        status: FlowStatus,
        /// Number of consecutive frames until the next flow control; 0 means no limit.
        block_size: u8,
        /// Minimum time between consecutive frames.
        st_min: SeparationTime,
    },
}

/// FS, the flow status (ISO 15765-2, 9.6.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowStatus {
    /// CTS: the sender may continue.
    ContinueToSend,
    /// WAIT: the sender waits for another flow control.
    Wait,
    /// OVFLW: the PDU is too long for the receiver.
    Overflow,
    /// A value that the standard reserves, 3…15.
    Reserved(u8),
}

/// The reason why a frame is not an N_PDU. The standard requires that such frames are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NPduError {
    /// The frame has fewer bytes than its type requires.
    #[error("the frame is too short for its type")]
    Short,
    /// A type that the standard reserves.
    #[error("N_PCI type {0} is unknown")]
    UnknownType(u8),
    /// SF_DL is 0, exceeds the frame, or is not encoded as the frame's size requires.
    #[error("a single frame cannot have that length")]
    SingleFrameLength,
    /// FF_DL fits a single frame, or a 32-bit FF_DL fits 12 bits.
    #[error("a first frame cannot have the length {0}")]
    FirstFrameLength(u32),
}

impl<'a> NPdu<'a> {
    /// Decodes the data field of a frame whose first `address_bytes` (0 or 1) are the address.
    ///
    /// # Errors
    ///
    /// The data field is not an N_PDU.
    pub fn decode(frame: &'a [u8], address_bytes: usize) -> Result<Self, NPduError> {
        let can_dl = frame.len();
        let pdu = frame.get(address_bytes..).unwrap_or_default();
        let (&pci, rest) = pdu.split_first().ok_or(NPduError::Short)?;
        let nibble = pci & 0x0F;
        match pci >> 4 {
            0 if can_dl <= CLASSIC => match rest.get(..nibble.into()) {
                Some(data) if !data.is_empty() => Ok(Self::SingleFrame { data }),
                _ => Err(NPduError::SingleFrameLength),
            },
            0 => Self::decode_long_single_frame(nibble, rest),
            1 => Self::decode_first_frame(nibble, rest, can_dl, address_bytes),
            2 if rest.is_empty() => Err(NPduError::Short),
            2 => Ok(Self::ConsecutiveFrame { sequence_number: nibble, data: rest }),
            3 => match *rest {
                [block_size, st_min, ..] => Ok(Self::FlowControl {
                    status: FlowStatus::from_nibble(nibble),
                    block_size,
                    st_min: SeparationTime(st_min),
                }),
                _ => Err(NPduError::Short),
            },
            unknown => Err(NPduError::UnknownType(unknown)),
        }
    }

    /// Decodes a single frame of more than 8 bytes, which has its length in a separate byte (9.6.2.1).
    ///
    /// The standard excludes lengths that fit a frame of 8 bytes. ECUs that send frames of one length only use them
    /// nevertheless, and Linux' can-isotp takes them.
    fn decode_long_single_frame(nibble: u8, rest: &'a [u8]) -> Result<Self, NPduError> {
        let (&length, rest) = rest.split_first().ok_or(NPduError::Short)?;
        match rest.get(..length.into()) {
            Some(data) if nibble == 0 && !data.is_empty() => Ok(Self::SingleFrame { data }),
            _ => Err(NPduError::SingleFrameLength),
        }
    }

    fn decode_first_frame(
        nibble: u8,
        rest: &'a [u8],
        can_dl: usize,
        address_bytes: usize,
    ) -> Result<Self, NPduError> {
        if can_dl < CLASSIC {
            return Err(NPduError::Short);
        }
        let (length, data) = match *rest {
            [0, a, b, c, d, ref data @ ..] if nibble == 0 => {
                let length = u32::from_be_bytes([a, b, c, d]);
                if to_usize(length) <= MAX_SHORT_LENGTH {
                    return Err(NPduError::FirstFrameLength(length));
                }
                (length, data)
            }
            [low, ref data @ ..] => (u32::from(nibble) << 8 | u32::from(low), data),
            [] => return Err(NPduError::Short),
        };
        // FF_DLmin (9.6.3.1): a PDU that fits a single frame of the same size must be sent as one
        if to_usize(length) <= max_single_frame(can_dl, address_bytes) {
            return Err(NPduError::FirstFrameLength(length));
        }
        Ok(Self::FirstFrame { length, data })
    }

    /// Returns the number of bytes before the padding, including the address, if the N_PDU itself contains
    /// it.
    pub(super) fn used(&self, address_bytes: usize) -> Option<usize> {
        match self {
            Self::SingleFrame { data } if data.len() <= max_single_frame(CLASSIC, address_bytes) => {
                Some(address_bytes + 1 + data.len())
            }
            Self::FlowControl { .. } => Some(address_bytes + 3),
            _ => None,
        }
    }
}

impl FlowStatus {
    fn from_nibble(nibble: u8) -> Self {
        match nibble {
            0 => Self::ContinueToSend,
            1 => Self::Wait,
            2 => Self::Overflow,
            other => Self::Reserved(other),
        }
    }

    fn nibble(self) -> u8 {
        match self {
            Self::ContinueToSend => 0,
            Self::Wait => 1,
            Self::Overflow => 2,
            Self::Reserved(other) => other & 0x0F,
        }
    }
}

/// Returns the longest PDU that fits a single frame of `frame` bytes.
pub(super) fn max_single_frame(frame: usize, address_bytes: usize) -> usize {
    let pci = if frame <= CLASSIC { 1 } else { 2 };
    frame.saturating_sub(address_bytes + pci)
}

/// The protocol control information in front of the data: at most 6 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct PciHeader {
    bytes: [u8; 6],
    len: usize,
}

impl PciHeader {
    /// Header of a single frame with `len` bytes, at most 62. A PDU that does not fit 8 bytes has the escape
    /// sequence.
    pub(super) fn single_frame(len: usize, address_bytes: usize) -> Self {
        let byte = (len & 0xFF) as u8;
        if len <= max_single_frame(CLASSIC, address_bytes) {
            Self::new([byte, 0, 0, 0, 0, 0], 1)
        } else {
            Self::new([0, byte, 0, 0, 0, 0], 2)
        }
    }

    pub(super) fn first_frame(length: u32) -> Self {
        let [a, b, c, d] = length.to_be_bytes();
        if to_usize(length) <= MAX_SHORT_LENGTH {
            Self::new([0x10 | c, d, 0, 0, 0, 0], 2)
        } else {
            Self::new([0x10, 0, a, b, c, d], 6)
        }
    }

    pub(super) fn consecutive_frame(sequence_number: u8) -> Self {
        Self::new([0x20 | sequence_number & 0x0F, 0, 0, 0, 0, 0], 1)
    }

    pub(super) fn flow_control(status: FlowStatus, block_size: u8, st_min: SeparationTime) -> Self {
        Self::new([0x30 | status.nibble(), block_size, st_min.0, 0, 0, 0], 3)
    }

    fn new(bytes: [u8; 6], len: usize) -> Self {
        Self { bytes, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

fn to_usize(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(data: &[u8]) -> Result<NPdu<'_>, NPduError> {
        Ok(NPdu::SingleFrame { data })
    }

    #[test]
    fn each_type_is_read_from_its_golden_bytes() {
        assert_eq!(
            NPdu::decode(&[3, 0x22, 0xF1, 0x90, 0xCC, 0xCC, 0xCC, 0xCC], 0),
            single(&[0x22, 0xF1, 0x90])
        );
        assert_eq!(NPdu::decode(&[0xF1, 2, 0x3E, 0x80], 1), single(&[0x3E, 0x80]));
        assert_eq!(
            NPdu::decode(&[0x10, 0x14, 0x62, 0xF1, 0x90, 1, 2, 3], 0),
            Ok(NPdu::FirstFrame { length: 20, data: &[0x62, 0xF1, 0x90, 1, 2, 3] })
        );
        assert_eq!(
            NPdu::decode(&[0x10, 0, 0, 0, 0x10, 0, 1, 2], 0),
            Ok(NPdu::FirstFrame { length: 4096, data: &[1, 2] })
        );
        assert_eq!(
            NPdu::decode(&[0x2F, 1, 2], 0),
            Ok(NPdu::ConsecutiveFrame { sequence_number: 15, data: &[1, 2] })
        );
        let flow_control = |status| NPdu::FlowControl { status, block_size: 8, st_min: SeparationTime(0xF3) };
        assert_eq!(NPdu::decode(&[0x30, 8, 0xF3], 0), Ok(flow_control(FlowStatus::ContinueToSend)));
        assert_eq!(NPdu::decode(&[0x31, 8, 0xF3, 0, 0], 0), Ok(flow_control(FlowStatus::Wait)));
        assert_eq!(NPdu::decode(&[0x55, 0x32, 8, 0xF3], 1), Ok(flow_control(FlowStatus::Overflow)));
        assert_eq!(NPdu::decode(&[0x3A, 8, 0xF3], 0), Ok(flow_control(FlowStatus::Reserved(10))));
    }

    #[test]
    fn a_single_frame_may_not_be_empty_or_longer_than_its_frame() {
        let error = Err(NPduError::SingleFrameLength);
        assert_eq!(NPdu::decode(&[0, 1, 2, 3, 4, 5, 6, 7], 0), error);
        assert_eq!(NPdu::decode(&[8, 1, 2, 3, 4, 5, 6, 7], 0), error);
        assert_eq!(NPdu::decode(&[0xAE, 7, 2, 3, 4, 5, 6, 7], 1), error);
        assert_eq!(NPdu::decode(&[3, 1, 2], 0), error);
        assert_eq!(NPdu::decode(&[7, 1, 2, 3, 4, 5, 6, 7], 0), single(&[1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(NPdu::decode(&[0xAE, 6, 2, 3, 4, 5, 6, 7], 1), single(&[2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn a_single_frame_above_eight_bytes_has_its_length_in_the_second_byte_only() {
        let mut frame = [0xCC; 64];
        for (address_bytes, pci, length, taken) in [
            (0, 0, 8, true),
            (0, 0, 62, true),
            (0, 0, 63, false),
            (0, 0, 0, false),
            // the standard has these in a frame of 8 bytes, but ECUs that send long frames only use them
            (0, 0, 7, true),
            (0, 0, 1, true),
            (0, 1, 8, false),
            (0, 7, 7, false),
            (1, 0, 7, true),
            (1, 0, 6, true),
            (1, 0, 1, true),
            (1, 0, 0, false),
            (1, 0, 61, true),
            (1, 0, 62, false),
        ] {
            frame[address_bytes] = pci;
            frame[address_bytes + 1] = length;
            let expected = if taken {
                single(&[0xCC; 64][..usize::from(length)])
            } else {
                Err(NPduError::SingleFrameLength)
            };
            assert_eq!(NPdu::decode(&frame, address_bytes), expected, "{address_bytes} {pci} {length}");
        }
    }

    #[test]
    fn a_first_frame_of_a_pdu_that_fits_a_single_frame_is_refused() {
        for (can_dl, address_bytes, least) in
            [(8, 0, 8), (8, 1, 7), (12, 0, 11), (12, 1, 10), (64, 0, 63), (64, 1, 62)]
        {
            let mut frame = vec![0; can_dl];
            frame[address_bytes] = 0x10;
            frame[address_bytes + 1] = least - 1;
            let error = NPduError::FirstFrameLength(u32::from(least) - 1);
            assert_eq!(NPdu::decode(&frame, address_bytes), Err(error), "{can_dl} {address_bytes}");
            frame[address_bytes + 1] = least;
            let decoded = NPdu::decode(&frame, address_bytes);
            assert!(matches!(decoded, Ok(NPdu::FirstFrame { .. })), "{can_dl} {address_bytes}: {decoded:?}");
        }
    }

    #[test]
    fn a_32_bit_length_is_refused_where_12_bits_would_do() {
        let error = Err(NPduError::FirstFrameLength(4095));
        assert_eq!(NPdu::decode(&[0x10, 0, 0, 0, 0x0F, 0xFF, 1, 2], 0), error);
        assert_eq!(NPdu::decode(&[0x10, 0, 0, 0, 0, 0, 1, 2], 0), Err(NPduError::FirstFrameLength(0)));
    }

    #[test]
    fn a_frame_that_is_too_short_or_of_an_unknown_type_is_not_an_n_pdu() {
        assert_eq!(NPdu::decode(&[], 0), Err(NPduError::Short));
        assert_eq!(NPdu::decode(&[0xF1], 1), Err(NPduError::Short));
        assert_eq!(NPdu::decode(&[0x21], 0), Err(NPduError::Short));
        assert_eq!(NPdu::decode(&[0x30, 0], 0), Err(NPduError::Short));
        assert_eq!(NPdu::decode(&[0x10, 20, 1, 2, 3, 4, 5], 0), Err(NPduError::Short));
        for kind in 4..=15 {
            assert_eq!(NPdu::decode(&[kind << 4, 0, 0], 0), Err(NPduError::UnknownType(kind)));
        }
    }

    #[test]
    fn headers_have_their_golden_bytes() {
        assert_eq!(PciHeader::single_frame(7, 0).bytes(), [7]);
        assert_eq!(PciHeader::single_frame(7, 1).bytes(), [0, 7]);
        assert_eq!(PciHeader::single_frame(62, 0).bytes(), [0, 62]);
        assert_eq!(PciHeader::first_frame(8).bytes(), [0x10, 8]);
        assert_eq!(PciHeader::first_frame(4095).bytes(), [0x1F, 0xFF]);
        assert_eq!(PciHeader::first_frame(4096).bytes(), [0x10, 0, 0, 0, 0x10, 0]);
        assert_eq!(PciHeader::first_frame(0x1234_5678).bytes(), [0x10, 0, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(PciHeader::consecutive_frame(16).bytes(), [0x20]);
        let flow_control = PciHeader::flow_control(FlowStatus::Overflow, 8, SeparationTime(20));
        assert_eq!(flow_control.bytes(), [0x32, 8, 20]);
    }
}
