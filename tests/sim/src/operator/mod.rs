//! A remote operator: a library, and a command line on top of it.

pub mod client;
pub mod flash;
pub mod uds;
