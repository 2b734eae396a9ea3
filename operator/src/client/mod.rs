//! The client library of a remote operator.
//!
//! [`Operator`] logs in, lists tickets and joins them (REST). [`Operator::connect`] joins the connection of a
//! ticket over the websocket. A [`Connection`] survives lost links on either side, and its [`Channel`]s carry
//! PDUs and frames.

mod channel;
mod connection;
mod consent;
mod customer;
mod driver;
mod error;
mod http;
mod inbox;
mod isotp;
mod joining;
mod live;
mod policy_view;
mod protocol;
mod requester;
mod response;
mod rest;
mod shared;
mod socket;
mod ticket;
mod tokens;
mod wait;

pub use channel::Channel;
pub(crate) use channel::failure;
pub use connection::{Connection, Joined, Vehicle};
pub(crate) use consent::{ConsentOutcome, ConsentWait};
pub use customer::{ConnectorUpdate, ConnectorWatch, Customer};
pub use error::{CloseReason, DialError, ExchangeError, OperatorError, SendFailure};
pub use inbox::{Item, Received};
pub use isotp::isotp_channel;
pub(crate) use isotp::{functional_channel, is_obd_functional};
pub use policy_view::{ConsentView, PolicySummary, PolicyView};
pub(crate) use response::ResponseKind;
pub use response::{Response, Timing};
pub use rest::Operator;
pub use shared::{ConnectionSettings, Counters, LinkState};
pub use socket::{Dial, Io, Socket};
pub use ticket::Ticket;
pub use tokens::Credentials;
