//! CAN buses: identifiers, frames, the trait that every adapter implements, and the adapters.

mod bus;
mod device;
mod error;
mod events;
mod frame;
mod frame_length;
mod id;
mod isotp_socket;
pub mod slcan;
mod socketcan;
#[cfg(feature = "sim")]
pub mod virtual_bus;

pub use bus::{CanBus, CanBusExt, CanCapabilities, CanEvent, CanFilter, CanSettings};
pub use device::{CanDevice, open, open_in_turn};
pub use error::CanError;
pub use frame::{CanFrame, FdFlags, FrameError, FrameKind, MAX_FD_LEN, fd_length};
pub use frame_length::WireLength;
pub use id::{CanId, CanIdError};
pub use isotp_socket::{
    IsotpEvent, IsotpOptions, IsotpReceiveError, IsotpSendError, IsotpSocket, kernel_max_pdu,
};
