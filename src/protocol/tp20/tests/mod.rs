//! A channel with recorded traces of vehicles, with a peer in virtual time, and with hostile frames.

mod hostile;
mod pair;
mod traces;
mod transfers;
