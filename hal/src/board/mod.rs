//! The board: supply voltage, ignition, LED, buzzer, button, DoIP activation line.

mod activation;
mod config;
mod linux;
mod pin;
#[cfg(feature = "sim")]
mod sim;
mod traits;

pub use activation::{Activation, ActivationLine};
pub use config::{BoardConfig, GpioLine, InputConfig, Number, OutputConfig, Source, VoltageConfig};
pub use linux::{BoardProblem, LinuxBoard};
#[cfg(feature = "sim")]
pub use sim::{SimBoard, SimBoardHandle};
pub use traits::{Board, BoardEvent, BoardExt, Led};
