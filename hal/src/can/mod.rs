//! CAN buses: identifiers, frames, and the interface every adapter offers.

mod bus;
mod frame;
mod id;

pub use bus::{
    BoxFuture, BusLoad, BusState, BusStatus, CanBus, CanBusExt, CanCapabilities, CanError, CanEvent,
    CanFilter, CanSettings, bit_time,
};
pub use frame::{CanFrame, FdFlags, FrameError, FrameKind, MAX_CLASSIC_LEN, MAX_FD_LEN, fd_length};
pub use id::{CanId, CanIdError};
