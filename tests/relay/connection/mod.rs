//! The connector's part of the relay against its contract: a session on virtual buses in virtual time, with the
//! operator's end of the link on one side and scripted ECUs on the other.
// the configuration's leave for tests does not reach their helpers

mod gateway;
mod rig;
mod scan;
mod tp20;
mod vehicle;

mod age;
mod buses;
mod chains;
mod channels;
mod doip;
mod keep_alive;
mod kline;
mod malformed;
mod raw;
mod resume;
mod terminal15;
