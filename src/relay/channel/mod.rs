//! The channels that an operator opens on a bus, as pure state machines.
//!
//! `handle_*` methods take input, `poll_*` methods return output, and time is an argument.

mod can_channel;
mod keep_alive;
mod kernel_isotp;
mod kline_transport;
mod last_request;
mod output;
mod own_request;
mod pdu_channel;
mod raw_channel;
mod tp20_transport;
mod transport;

pub use can_channel::CanChannel;
pub(crate) use keep_alive::KeepAliveHold;
pub use kernel_isotp::KernelIsotp;
pub(crate) use kline_transport::{KlineLinkChange, KlineTransport, describe_failure};
pub use last_request::ResponseTiming;
pub use output::{ChannelOutput, KeepAliveStop, Output, PduToSend};
pub use pdu_channel::{PduChannel, PduChannelSettings};
pub use raw_channel::RawChannel;
pub(crate) use tp20_transport::Tp20Transport;
#[cfg(test)]
pub(crate) use transport::FrameTransport;
pub use transport::{EcuTarget, OpenFailure, PduTransport, TransportEvent};
