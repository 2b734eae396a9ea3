//! The content of one frame of a channel.

use connector_hal::can::{CanFrame, CanId};

use super::TimeByte;

/// Number of PDU bytes in one frame.
pub(super) const DATA_BYTES: usize = 7;

/// The parameters that one side asks its peer to keep when sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// Number of data frames after which the sender waits for an acknowledgement, 1…15.
    pub block_size: u8,
    /// Time that an acknowledgement may take.
    pub t1: TimeByte,
    /// T2, which is not used.
    pub t2: TimeByte,
    /// Shortest time between two data frames.
    pub t3: TimeByte,
    /// T4, which is not used.
    pub t4: TimeByte,
}

impl Default for Parameters {
    /// 15 frames, T1 100 ms, T3 5 ms: `0F 8A FF 32 FF`, as the testers of the Volkswagen group use.
    fn default() -> Self {
        Self {
            block_size: 15,
            t1: TimeByte(0x8A),
            t2: TimeByte::UNUSED,
            t3: TimeByte(0x32),
            t4: TimeByte::UNUSED,
        }
    }
}

impl Parameters {
    fn parse(bytes: &[u8]) -> Option<Self> {
        match *bytes {
            [block_size, t1, t2, t3, t4, ..] => Some(Self {
                block_size,
                t1: TimeByte(t1),
                t2: TimeByte(t2),
                t3: TimeByte(t3),
                t4: TimeByte(t4),
            }),
            _ => None,
        }
    }
}

/// A frame of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tpdu<'a> {
    /// A segment of a PDU.
    Data {
        /// Whether the sender waits for an acknowledgement.
        wants_ack: bool,
        /// Whether this is the PDU's last segment.
        is_last: bool,
        /// Sequence number of the sender, 0…15.
        sequence: u8,
        /// The segment; the first segment of a PDU begins with the length of the PDU, in two bytes.
        data: &'a [u8],
    },
    /// Acknowledges all data frames before `sequence`.
    Ack {
        /// Whether the receiver is ready for more data.
        ready: bool,
        /// Sequence number of the next data frame.
        sequence: u8,
    },
    /// A0: the sender's parameters; asks for those of the peer.
    ParametersRequest(Parameters),
    /// A1: the sender's parameters, as the answer to a request or a channel test; `None` if the frame
    /// contains none.
    ParametersResponse(Option<Parameters>),
    /// A3: asks whether the peer is still there.
    ChannelTest,
    /// A4: discards the data frames since the last acknowledgement.
    Break,
    /// A8: ends the channel.
    Disconnect,
}

/// The reason why a frame is not one of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TpduError {
    /// The frame is empty, or has fewer bytes than parameters need.
    #[error("the frame is too short")]
    TooShort,
    /// The first byte is not a known operation.
    #[error("0x{0:02X} is not an operation of TP2.0")]
    UnknownOperation(u8),
}

impl<'a> Tpdu<'a> {
    /// Decodes the data of a frame.
    ///
    /// # Errors
    ///
    /// The frame is empty, too short for parameters, or of an unknown operation.
    pub fn decode(data: &'a [u8]) -> Result<Self, TpduError> {
        let (&first, rest) = data.split_first().ok_or(TpduError::TooShort)?;
        let sequence = first & 0x0F;
        Ok(match first {
            0x00..=0x3F => {
                Self::Data { wants_ack: first & 0x20 == 0, is_last: first & 0x10 != 0, sequence, data: rest }
            }
            0x90..=0x9F => Self::Ack { ready: false, sequence },
            0xB0..=0xBF => Self::Ack { ready: true, sequence },
            0xA0 => Self::ParametersRequest(Parameters::parse(rest).ok_or(TpduError::TooShort)?),
            0xA1 => Self::ParametersResponse(Parameters::parse(rest)),
            0xA3 => Self::ChannelTest,
            0xA4 => Self::Break,
            0xA8 => Self::Disconnect,
            _ => return Err(TpduError::UnknownOperation(first)),
        })
    }

    /// Encodes the frame; returns `None` if the data does not fit.
    pub fn encode(&self, id: CanId) -> Option<CanFrame> {
        let parameters = |first: u8, parameters: &Parameters| {
            let Parameters { block_size, t1, t2, t3, t4 } = *parameters;
            CanFrame::new(id, &[first, block_size, t1.0, t2.0, t3.0, t4.0])
        };
        let frame = match *self {
            Self::Data { wants_ack, is_last, sequence, data } => {
                let op = u8::from(!wants_ack) << 5 | u8::from(is_last) << 4;
                let mut bytes = [0; 1 + DATA_BYTES];
                let (first, rest) = bytes.split_first_mut()?;
                *first = op | sequence & 0x0F;
                rest.get_mut(..data.len())?.copy_from_slice(data);
                CanFrame::new(id, bytes.get(..1 + data.len())?)
            }
            Self::Ack { ready, sequence } => {
                CanFrame::new(id, &[if ready { 0xB0 } else { 0x90 } | sequence & 0x0F])
            }
            Self::ParametersRequest(ref own) => parameters(0xA0, own),
            Self::ParametersResponse(Some(ref own)) => parameters(0xA1, own),
            Self::ParametersResponse(None) => CanFrame::new(id, &[0xA1]),
            Self::ChannelTest => CanFrame::new(id, &[0xA3]),
            Self::Break => CanFrame::new(id, &[0xA4]),
            Self::Disconnect => CanFrame::new(id, &[0xA8]),
        };
        frame.ok()
    }
}
