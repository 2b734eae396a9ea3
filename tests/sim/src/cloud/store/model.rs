//! The records.

use connector_agent::protocol::vin::Vin;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Record, Table, number_key};

/// What someone who logged in may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// A connector, and the workshop beside it: its own record, its own tickets.
    Connector,
    /// The customer whose connectors these are.
    Customer,
    /// A remote operator: the partner API and the relay.
    Operator,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// Connector UUID or account's client id.
    pub(crate) id: String,
    /// What it may do.
    pub(crate) role: Role,
    /// The connector's number, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connector_id: Option<i64>,
}

/// A connector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Connector {
    pub(crate) id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) pincode: String,
    pub(crate) hardware_type: String,
    pub(crate) product_description: String,
    pub(crate) has_wifi: bool,
    pub(crate) supports_doip: bool,
    pub(crate) software_version: i64,
    pub(crate) hardware_version: i64,
    pub(crate) vehicle_path_string: Option<String>,
    pub(crate) vin_number: Option<Vin>,
    pub(crate) agent_version: Option<String>,
    /// The button was pressed, and nobody has dismissed it.
    pub(crate) call_for_attention: bool,
    /// Dismissed while the connector was away: it is told when it comes back.
    pub(crate) dismissal_owed: bool,
}

/// Where a ticket is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TicketState {
    Pending,
    InProgress,
    Outsourced,
    Closed,
    Cancelled,
}

/// A customer's ticket, from pending on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) state: TicketState,
    pub(crate) vin: Option<Vin>,
    pub(crate) vehicle_model_id: Option<i64>,
    pub(crate) vehicle_model_variant_id: Option<i64>,
    pub(crate) product_ids: Vec<i64>,
    pub(crate) connector_id: i64,
    pub(crate) chat_id: Uuid,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) reference: Option<String>,
    pub(crate) voucher: Option<String>,
    pub(crate) prepared_ticket_id: Option<Uuid>,
    pub(crate) preparer_external_reference: Option<String>,
    pub(crate) confirmed_unattended_service: Option<bool>,
    /// Who made it.
    pub(crate) customer: String,
    /// Whose login joined it.
    pub(crate) operator: Option<String>,
    /// What the operator called itself when joining.
    pub(crate) operator_id: Option<Value>,
    pub(crate) connection_id: Option<i64>,
    pub(crate) connection_uuid: Option<Uuid>,
    pub(crate) cancelled_reason: Option<String>,
    pub(crate) outsourced_to: Option<Value>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) joined_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) closed_at: Option<OffsetDateTime>,
}

impl Ticket {
    /// Whether it still occupies its connector.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, TicketState::Pending | TicketState::InProgress)
    }
}

/// A ticket that a partner prepared and no customer has used yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PreparedTicket {
    pub(crate) id: Uuid,
    pub(crate) ticket_number: i64,
    pub(crate) customer_id: Option<i64>,
    pub(crate) vin: Option<Vin>,
    pub(crate) product_ids: Vec<i64>,
    pub(crate) vehicle_model_id: Option<i64>,
    pub(crate) vehicle_model_variant_id: Option<i64>,
    pub(crate) preparer_external_reference: Option<String>,
    pub(crate) voucher_code: String,
    pub(crate) description: Option<String>,
    /// Whose login prepared it.
    pub(crate) preparer: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

/// A client of the client-credentials grant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) client_id: String,
    /// Kept as it is: the sandbox prints it at every start.
    pub(crate) client_secret: String,
    pub(crate) role: Role,
    /// The customer's number, if it is one.
    pub(crate) customer_id: Option<i64>,
}

/// A refresh token, known by its hash only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefreshToken {
    pub(crate) hash: [u8; 32],
    pub(crate) subject: Subject,
    /// All tokens that came of one login.
    pub(crate) family: Uuid,
    /// Used up: using it again means that someone copied it.
    pub(crate) rotated: bool,
    /// Unix seconds.
    pub(crate) expires_at: i64,
}

/// How often a connector's pincode was wrong.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PincodeGuard {
    pub(crate) connector_id: i64,
    pub(crate) failures: u32,
    /// Unix milliseconds.
    pub(crate) locked_until: i64,
    /// Unix milliseconds.
    pub(crate) last_failure: i64,
}

/// A one-time password, known by its hash only, gone when used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OneTimePassword {
    pub(crate) hash: [u8; 32],
    pub(crate) subject: Subject,
    /// Stays when used, so that the connectors file does not bring it back.
    pub(crate) used: bool,
}

/// A file on a messenger channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) file_reference: Uuid,
    pub(crate) channel_id: Uuid,
    pub(crate) file_name: String,
    /// Bytes, once uploaded.
    pub(crate) size: Option<u64>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

macro_rules! record {
    ($type:ty, $table:literal, $self:ident => $key:expr) => {
        impl Record for $type {
            const TABLE: Table = Table::new($table);
            fn key(&$self) -> Vec<u8> {
                $key.to_vec()
            }
        }
    };
}

record!(Connector, "connectors", self => number_key(self.id));
record!(Ticket, "tickets", self => number_key(self.id));
record!(PreparedTicket, "prepared_tickets", self => self.id.as_bytes());
record!(Account, "accounts", self => self.client_id.as_bytes());
record!(RefreshToken, "refresh_tokens", self => self.hash);
record!(PincodeGuard, "pincode_guards", self => number_key(self.connector_id));
record!(OneTimePassword, "one_time_passwords", self => self.hash);
record!(Attachment, "attachments", self => self.file_reference.as_bytes());
