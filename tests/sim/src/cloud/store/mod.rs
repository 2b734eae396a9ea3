//! The cloud's state: JSON records in an embedded database, where every change is one durable transaction.

mod database;
mod model;
mod record;
mod seed;

pub(crate) use database::{Change, Read, Store, View};
pub(crate) use model::{
    Account, Attachment, Connector, Csat, Employee, Favorite, Note, OneTimePassword, PincodeGuard,
    PreparedTicket, PrerequisiteAnswer, RefreshToken, Role, Subject, Ticket, TicketState,
};
pub use record::StoreError;
pub(crate) use record::number_key;
pub use seed::ConnectorSeed;
pub(crate) use seed::{FIRST_TICKET, TICKET_COUNTER};
