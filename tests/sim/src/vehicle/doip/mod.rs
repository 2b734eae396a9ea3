//! The vehicle of the file behind a DoIP gateway.
//!
//! | logical address | what is there |
//! |---|---|
//! | 0x4010 | the gateway itself, which knows the VIN (`22 F190`) |
//! | 0x4011, 0x4012, … | the ECUs, in the order of [`VehicleRecord::nodes`](super::catalogue::VehicleRecord::nodes) |
//! | 0x4020 | the second gateway itself, where there is one; the later half of the ECUs is behind it |
//! | 0xE000, 0xE400 | all ECUs of a gateway |
//!
//! ECUs behind DoIP are others than those on the CAN bus of the same vehicle: each has sessions and memory of its own.

mod args;
mod ecus;
mod gateway;
mod recording;

pub use args::{DoipArgs, serve};
pub use gateway::{DoipConfig, DoipGateway, FIRST_ECU, GATEWAY, RunningDoipEcu, SECOND_GATEWAY};
pub use recording::{Carrier, DoipRecord, DoipRecording, RecordingError, Speaker};
