//! Creates, joins and ends tickets, each in one transaction; the relay follows afterwards.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::problem::ApiError;
use crate::cloud::app::App;
use crate::cloud::hub::{Changed, RelayPlan};
use crate::cloud::store::{Change, Read as _, Ticket, TicketState};

/// The first ticket's number.
const FIRST_TICKET: i64 = 100_001;
/// The first connection's number.
const FIRST_CONNECTION: i64 = 500_001;

/// The number of a new ticket, prepared or not.
pub(super) fn next_ticket_number(change: &Change) -> Result<i64, ApiError> {
    Ok(change.next_number("ticket-number", FIRST_TICKET)?)
}

/// 409: the ticket's state does not allow this.
fn wrong_state(ticket: &Ticket) -> ApiError {
    let state = serde_json::to_value(ticket.state).unwrap_or_default();
    let detail = format!("The ticket is {}.", state.as_str().unwrap_or_default());
    ApiError::conflict("ticket-state", "The ticket's state does not allow it", detail)
}

/// Joins a pending ticket as an operator. The ticket is then in progress, with a connection.
pub(super) fn join(
    change: &Change,
    mut ticket: Ticket,
    operator: &str,
    operator_id: Value,
) -> Result<Ticket, ApiError> {
    if ticket.state != TicketState::Pending {
        return Err(wrong_state(&ticket));
    }
    let busy = change
        .all::<Ticket>()?
        .into_iter()
        .any(|other| other.connector_id == ticket.connector_id && other.state == TicketState::InProgress);
    if busy {
        let detail = "Another ticket is in progress on the connector, and it serves one at a time.";
        return Err(ApiError::conflict("connector-busy", "Connector busy", detail));
    }
    ticket.state = TicketState::InProgress;
    ticket.operator = Some(operator.to_owned());
    ticket.operator_id = Some(operator_id);
    ticket.connection_id = Some(change.next_number("connection-number", FIRST_CONNECTION)?);
    ticket.connection_uuid = Some(Uuid::new_v4());
    ticket.joined_at = Some(OffsetDateTime::now_utc());
    change.put(&ticket)?;
    Ok(ticket)
}

/// The ways in which a ticket ends for its operator.
pub(super) enum End {
    /// Completed.
    Complete,
    /// Cancelled, with an optional reason.
    Cancel(Option<String>),
    /// Outsourced, with an optional new partner.
    Outsource(Option<Value>),
}

/// Ends an active ticket; `from` are the states in which it may end.
pub(super) fn end(
    change: &Change,
    mut ticket: Ticket,
    from: &[TicketState],
    end: End,
) -> Result<Ticket, ApiError> {
    if !from.contains(&ticket.state) {
        return Err(wrong_state(&ticket));
    }
    match end {
        End::Complete => ticket.state = TicketState::Closed,
        End::Cancel(reason) => {
            ticket.state = TicketState::Cancelled;
            ticket.cancelled_reason = reason;
        }
        End::Outsource(to) => {
            ticket.state = TicketState::Outsourced;
            ticket.outsourced_to = to;
        }
    }
    ticket.closed_at = Some(OffsetDateTime::now_utc());
    change.put(&ticket)?;
    Ok(ticket)
}

/// Lets the relay and subscribers follow a change of a ticket's state.
pub(super) fn update_relay(app: &App, ticket: &Ticket) {
    match (ticket.state, ticket.connection_uuid) {
        (TicketState::InProgress, _) => {
            if let Some(plan) = RelayPlan::of(ticket) {
                app.hub.begin(plan);
            }
        }
        (TicketState::Closed | TicketState::Cancelled | TicketState::Outsourced, Some(connection)) => {
            app.hub.end(connection);
        }
        _ => {}
    }
    app.hub.changed(Changed::Ticket(ticket.id));
}
