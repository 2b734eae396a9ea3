//! The websocket to the cloud: connecting, reconnecting, detecting a dead connection, and passing messages.
//!
//! [`CloudSocket`] receives and sends messages. `connecting` decides with [`reconnect`] when to connect, and
//! `connect` carries out one attempt. [`liveness`] decides when to send a Ping and when the connection is
//! dead.

mod closing;
mod cloud_socket;
mod connect;
mod connecting;
mod event;
pub(crate) mod liveness;
pub(crate) mod reconnect;
mod settings;
mod unsent;
mod upgrade;

pub use cloud_socket::CloudSocket;
pub use event::{DownReason, OutgoingMessage, SocketEvent};
pub use settings::SocketSettings;
