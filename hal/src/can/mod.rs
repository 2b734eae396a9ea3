//! CAN buses: identifiers, frames, the interface every adapter offers, and the adapters.

mod bus;
mod device;
mod events;
mod frame;
mod id;
mod isotp_socket;
mod load;
pub mod slcan;
pub mod socketcan;
#[cfg(feature = "sim")]
pub mod virtual_bus;
mod wire;

pub use bus::{
    BoxFuture, BusLoad, BusState, BusStatus, CanBus, CanBusExt, CanCapabilities, CanError, CanEvent,
    CanFilter, CanSettings, bit_time,
};
pub use device::{CanDevice, open};
pub use frame::{CanFrame, FdFlags, FrameError, FrameKind, MAX_CLASSIC_LEN, MAX_FD_LEN, fd_length};
pub use id::{CanId, CanIdError};
pub use isotp_socket::{
    IsotpEvent, IsotpOptions, IsotpReceiveError, IsotpSendError, IsotpSocket, kernel_max_pdu,
};
pub use load::LoadMeter;
pub use wire::{INTERMISSION_BITS, WireLength};
