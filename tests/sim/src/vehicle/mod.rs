//! A simulated vehicle: the ECUs of a real one, on a bus with the timing of a real one.

pub mod candump;
pub mod catalogue;
mod command;
pub mod doip;
pub mod drive;
pub mod ecu;
pub mod kline;
pub mod recording;
pub mod simulation;
pub mod tp20;
pub mod transport;

pub(crate) use command::{Args, run};
pub use connector_operator::hex;
pub use doip::{DoipConfig, DoipGateway};
pub use drive::Drive;
pub use simulation::{RunningEcu, Vehicle, VehicleConfig};
pub use tp20::Tp20EcuConfig;
