//! K-lines: channels (pure), set-up, and the driver between channels and serial device.

pub(crate) mod channels;
mod driver;
mod link;
mod setup;
mod vin_questions;

pub(super) use channels::KlineChannels;
pub(super) use driver::KlineDriver;
pub(super) use setup::KlineBusSetup;
