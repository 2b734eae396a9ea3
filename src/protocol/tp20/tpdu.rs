//! What one frame of a channel says.

use connector_hal::can::{CanFrame, CanId};

use super::TimeByte;

/// Bytes of a PDU that one frame carries.
pub(super) const DATA_BYTES: usize = 7;

/// What a side wants its peer to keep to while sending to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parameters {
    /// After how many data frames an acknowledgement is waited for, 1…15.
    pub block_size: u8,
    /// How long to wait for an acknowledgement.
    pub t1: TimeByte,
    /// Not used.
    pub t2: TimeByte,
    /// The shortest time between two data frames.
    pub t3: TimeByte,
    /// Not used.
    pub t4: TimeByte,
}

impl Default for Parameters {
    /// 15 frames, T1 100 ms, T3 5 ms: `0F 8A FF 32 FF`, as the group's testers ask for.
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
    /// A piece of a PDU.
    Data {
        /// The sender waits for an acknowledgement.
        wants_ack: bool,
        /// The PDU ends here.
        is_last: bool,
        /// The sender's counter, 0…15.
        sequence: u8,
        /// The piece; the first one of a PDU begins with its length, in two bytes.
        data: &'a [u8],
    },
    /// Acknowledges everything before `sequence`.
    Ack {
        /// Whether more may come.
        ready: bool,
        /// The number that the next data frame should have.
        sequence: u8,
    },
    /// A0: the sender's parameters, those of the peer are wanted.
    ParametersRequest(Parameters),
    /// A1: the sender's parameters, in answer to a request or a channel test; `None` where it told none.
    ParametersResponse(Option<Parameters>),
    /// A3: is the peer there?
    ChannelTest,
    /// A4: what was sent since the last acknowledgement is to be forgotten.
    Break,
    /// A8: the channel is over.
    Disconnect,
}

/// A frame that says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TpduError {
    /// No byte at all, or parameters without the bytes of them.
    #[error("the frame is too short")]
    TooShort,
    /// The first byte has no meaning.
    #[error("0x{0:02X} is no operation")]
    UnknownOperation(u8),
}

impl<'a> Tpdu<'a> {
    /// Reads a frame's data.
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

    /// The frame that says it; `None` where the data is more than a frame holds.
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
