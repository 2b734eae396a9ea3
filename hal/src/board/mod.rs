//! The board: supply voltage, ignition, LED, buzzer, button, DoIP activation line.

mod activation;
mod check;
mod config;
mod linux;
mod output;
mod pin;
#[cfg(feature = "sim")]
mod sim;
mod traits;
mod voltage;

pub use activation::{Activation, ActivationLine};
pub use check::BoardProblem;
pub use config::{BoardConfig, GpioLine, InputConfig, Number, OutputConfig, Source, VoltageConfig};
pub use linux::LinuxBoard;
#[cfg(feature = "sim")]
pub use sim::{SimBoard, SimBoardHandle};
pub use traits::{Board, BoardEvent, BoardExt, Led};
