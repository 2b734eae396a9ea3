//! A channel against traces of vehicles, against a peer in virtual time, and against hostile frames.

mod hostile;
mod pair;
mod traces;
mod transfers;
