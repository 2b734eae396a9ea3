//! Stand-ins for the remote vehicle on the operator's machine, so that unmodified tools work through the relay.
//!
//! A tool's transport ends here, as the vehicle's ends in the connector: what has to be quick is answered beside the
//! tool, and only whole PDUs cross the network.

pub mod can;
mod command;
mod copies;
pub mod cover;
pub mod doip;
mod remote;

pub(super) use command::{can_gateway, doip_gateway, parse_ecu};
