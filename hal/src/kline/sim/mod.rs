//! A simulated K-line: the wire as a pure state machine, nodes on the wire, and a pseudo-terminal as a host's
//! interface.

mod line;
mod pty;
mod wire;

pub use line::{LineNode, SimLine};
pub use pty::PtyKLine;
pub use wire::{Wire, WireEvent};
