//! The cloud's state: JSON records in an embedded database, where every change is one durable transaction.

mod database;
mod model;
mod record;
mod seed;

pub(crate) use database::{Change, Read, Store, View};
pub(crate) use model::{
    Account, Attachment, Connector, OneTimePassword, PincodeGuard, PreparedTicket, RefreshToken, Role,
    Subject, Ticket, TicketState,
};
pub use record::StoreError;
pub(crate) use record::number_key;
pub use seed::ConnectorSeed;
