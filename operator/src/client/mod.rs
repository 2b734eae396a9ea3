//! A remote operator's side of the sandbox cloud and of the relay.
//!
//! [`Operator`] logs in, lists and joins tickets (REST). [`Operator::connect`] joins a ticket's connection over the
//! websocket; the [`Connection`] survives lost links on either side, and its [`Channel`]s carry PDUs and frames.

mod channel;
mod connection;
mod customer;
mod driver;
mod error;
mod inbox;
mod joining;
mod live;
mod rest;
mod socket;
mod tokens;

pub use channel::{Channel, Exchange, Response, Timing};
pub(crate) use channel::{Wait, failure};
pub use connection::{Connection, ConnectionSettings, Counters, Joined, LinkState, Vehicle};
pub use customer::{ConnectorUpdate, ConnectorWatch, Customer};
pub use error::{CloseReason, ExchangeError, OperatorError, describe_send_failure};
pub use inbox::{Item, Received};
pub use rest::{Credentials, Operator, Ticket};
pub use socket::{Dial, DialError, Io, Socket, Websocket};
