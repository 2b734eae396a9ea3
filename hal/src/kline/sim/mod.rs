//! A simulated K-line: the wire as a pure state machine, nodes on it, and a pseudo-terminal that joins a host to it.

mod line;
mod pty;
mod wire;

pub use line::{LineNode, SimLine};
pub use pty::PtyKLine;
pub use wire::{Wire, WireEvent};
