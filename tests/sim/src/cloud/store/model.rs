//! The records of the database.

use connector_agent::protocol::vin::Vin;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::record::{ByteTable, StoredRecord, number_key};

/// The permissions of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// A connector and its workshop: its own record and tickets.
    Connector,
    /// The customer to whom the connectors belong.
    Customer,
    /// A remote operator: the partner API and the relay.
    Operator,
}

/// The owner of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// The connector's UUID, or the account's client id.
    pub(crate) id: String,
    /// The permissions.
    pub(crate) role: Role,
    /// The connector's number, if the owner is a connector.
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
    /// The button was pressed, and the call has not been dismissed.
    pub(crate) call_for_attention: bool,
    /// The call was dismissed while the connector was offline, so the connector has to be notified.
    pub(crate) dismissal_owed: bool,
}

/// The state of a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TicketState {
    Pending,
    InProgress,
    Outsourced,
    Closed,
    Cancelled,
}

/// The VIN of a ticket for a vehicle without one, where the documents allow no null.
const NO_VIN: &str = "00000000000000000";

/// A customer's ticket, from the state `pending` on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    pub(crate) id: i64,
    pub(crate) uuid: Uuid,
    pub(crate) state: TicketState,
    /// Seventeen characters, which need not be a VIN of ISO 3779.
    pub(crate) vin: Option<String>,
    pub(crate) vehicle_model_id: Option<i64>,
    pub(crate) vehicle_model_variant_id: Option<i64>,
    pub(crate) product_ids: Vec<i64>,
    pub(crate) connector_id: i64,
    pub(crate) chat_id: Uuid,
    pub(crate) metadata: Map<String, Value>,
    pub(crate) reference: Option<String>,
    pub(crate) voucher: Option<String>,
    /// The discount of the voucher.
    #[serde(default)]
    pub(crate) voucher_percent: f64,
    pub(crate) prepared_ticket_id: Option<Uuid>,
    pub(crate) preparer_external_reference: Option<String>,
    pub(crate) confirmed_unattended_service: Option<bool>,
    /// The answers to the prerequisites of the products.
    #[serde(default)]
    pub(crate) product_prerequisites: Vec<PrerequisiteAnswer>,
    /// The customer's login.
    pub(crate) customer: String,
    /// The operator's login.
    pub(crate) operator: Option<String>,
    /// The id that the operator gave when joining.
    pub(crate) operator_id: Option<Value>,
    pub(crate) connection_id: Option<i64>,
    pub(crate) connection_uuid: Option<Uuid>,
    pub(crate) cancelled_reason: Option<String>,
    /// The number of the reason, in the partners' list.
    #[serde(default)]
    pub(crate) cancel_reason_id: Option<i32>,
    pub(crate) outsourced_to: Option<Value>,
    #[serde(default)]
    pub(crate) csat: Option<Csat>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) joined_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) closed_at: Option<OffsetDateTime>,
}

impl Ticket {
    /// Whether the ticket still occupies its connector.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.state, TicketState::Pending | TicketState::InProgress)
    }

    /// Whether the ticket is closed or cancelled. An outsourced one is with another provider.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, TicketState::Closed | TicketState::Cancelled)
    }

    /// The VIN, or [`NO_VIN`].
    pub(crate) fn vin_or_zeros(&self) -> String {
        self.vin.clone().unwrap_or_else(|| NO_VIN.to_owned())
    }

    /// Whether the ticket has this VIN, in capital or small letters.
    pub(crate) fn has_vin(&self, vin: &str) -> bool {
        self.vin.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(vin))
    }
}

/// The answer to a prerequisite. The documents require neither part; an answer without a number answers nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PrerequisiteAnswer {
    /// The prerequisite's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub(crate) definition_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000), with = "String")]
    pub(crate) value: Option<String>,
}

/// The customer's satisfaction with a ticket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Csat {
    /// From −1 (lowest) to 1.
    pub(crate) score: f64,
    pub(crate) comment: Option<String>,
}

/// A ticket that a partner has prepared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PreparedTicket {
    pub(crate) id: Uuid,
    pub(crate) ticket_number: i64,
    pub(crate) customer_id: Uuid,
    pub(crate) vin: Option<String>,
    pub(crate) product_ids: Vec<i64>,
    pub(crate) vehicle_model_id: i64,
    pub(crate) vehicle_model_variant_id: Option<i64>,
    pub(crate) preparer_external_reference: String,
    pub(crate) voucher_code: Option<String>,
    /// Whether it has become a customer's ticket, and is no longer offered.
    #[serde(default)]
    pub(crate) is_picked_up: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

/// A note on a ticket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) id: Uuid,
    pub(crate) ticket_id: i64,
    pub(crate) value: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) updated_at: OffsetDateTime,
}

/// An employee of the customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Employee {
    pub(crate) id: Uuid,
    pub(crate) given_name: String,
    pub(crate) family_name: String,
    pub(crate) username: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) correspondence_locale: String,
}

/// Whether a product is one of the customer's favourites, if the customer has decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Favorite {
    pub(crate) product_id: i64,
    pub(crate) is_favorite: bool,
}

/// A client of the client-credentials grant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) client_id: String,
    /// Stored in clear text, because the sandbox prints it at every start.
    pub(crate) client_secret: String,
    pub(crate) role: Role,
    /// The customer's number, if the account belongs to a customer.
    pub(crate) customer_id: Option<i64>,
}

/// A refresh token, of which only the hash is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RefreshToken {
    pub(crate) hash: [u8; 32],
    pub(crate) subject: Subject,
    /// The login from which the token stems.
    pub(crate) family: Uuid,
    /// Whether the token was used. A second use means that it was copied.
    pub(crate) rotated: bool,
    /// Unix seconds.
    pub(crate) expires_at: i64,
}

/// Counts the wrong pincodes for a connector.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PincodeGuard {
    pub(crate) connector_id: i64,
    pub(crate) failures: u32,
    /// Unix milliseconds.
    pub(crate) locked_until: i64,
    /// Unix milliseconds.
    pub(crate) last_failure: i64,
}

/// A one-time password, of which only the hash is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OneTimePassword {
    pub(crate) hash: [u8; 32],
    pub(crate) subject: Subject,
    /// A used password stays in the table, so that the connectors file does not restore it.
    pub(crate) used: bool,
}

/// A file on a messenger channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) file_reference: Uuid,
    pub(crate) channel_id: Uuid,
    pub(crate) file_name: String,
    /// Size in bytes, once the file is uploaded.
    pub(crate) size: Option<u64>,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
}

macro_rules! record {
    ($type:ty, $table:literal, $self:ident => $key:expr) => {
        impl StoredRecord for $type {
            const TABLE: ByteTable = ByteTable::new($table);
            fn key(&$self) -> Vec<u8> {
                $key.to_vec()
            }
        }
    };
}

record!(Connector, "connectors", self => number_key(self.id));
record!(Ticket, "tickets", self => number_key(self.id));
record!(PreparedTicket, "prepared_tickets_2", self => self.id.as_bytes());
record!(Account, "accounts", self => self.client_id.as_bytes());
record!(RefreshToken, "refresh_tokens", self => self.hash);
record!(PincodeGuard, "pincode_guards", self => number_key(self.connector_id));
record!(OneTimePassword, "one_time_passwords", self => self.hash);
record!(Attachment, "attachments", self => self.file_reference.as_bytes());
record!(Note, "notes", self => self.id.as_bytes());
record!(Employee, "employees", self => self.id.as_bytes());
record!(Favorite, "favorites", self => number_key(self.product_id));
