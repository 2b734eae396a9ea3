//! DoIP buses: channels (pure), set-up, and the driver between channels and the network.

mod channel;
mod channels;
mod driver;
mod searches;
mod setup;
mod transport;

pub(super) use channels::DoipChannels;
pub(super) use driver::DoipDriver;
pub(super) use setup::DoipBusSetup;
