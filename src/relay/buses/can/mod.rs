//! CAN buses: channels (pure), set-up, and the driver between channels and adapter.

mod bus_offs;
pub mod channels;
mod driver;
mod kernel_sockets;
mod open;
mod responders;
mod restart;
mod setup;

pub(super) use driver::CanDriver;
pub(super) use setup::CanBusSetup;
