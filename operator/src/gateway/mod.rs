//! Gateways that stand for the remote vehicle on the operator's machine, so that unmodified tools work
//! through the relay.
//!
//! A gateway terminates the tool's transport protocol, as the connector terminates the vehicle's. The gateway
//! answers everything with short deadlines itself, and only whole PDUs cross the network.

pub mod can;
mod copies;
pub mod cover;
pub mod doip;
mod remote;
