//! The vehicle from the file behind a DoIP gateway.
//!
//! | logical address | ECU |
//! |---|---|
//! | 0x4010 | the gateway itself, which reports the VIN (`22 F190`) |
//! | 0x4011, 0x4012, … | the ECUs, in the order of [`VehicleRecord::nodes`](super::catalogue::VehicleRecord::nodes) |
//! | 0x4020 | the second gateway, if there is one; the second half of the ECUs is behind it |
//! | 0xE000, 0xE400 | all ECUs of a gateway |
//!
//! The ECUs behind DoIP are separate from those on the CAN bus of the same vehicle: each has its own
//! sessions and memory.

mod args;
mod ecus;
mod gateway;
mod recording;

pub(crate) use args::{DoipArgs, serve};
pub use gateway::{DoipConfig, DoipGateway, FIRST_ECU, GATEWAY, RunningDoipEcu};
pub use recording::{Carrier, DoipRecord, DoipRecording, DoipRecordingError, Speaker};
