//! Creates, joins and ends tickets, each in one transaction; the relay follows afterwards.

use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::problem::{ApiError, Violations};
use crate::cloud::app::App;
use crate::cloud::catalogue::Catalogue;
use crate::cloud::hub::{Changed, EventKind, RelayPlan};
use crate::cloud::store::{
    Change, FIRST_TICKET, PreparedTicket, PrerequisiteAnswer, Read, StoreError, Subject, TICKET_COUNTER,
    Ticket, TicketState,
};

/// Limit of the tickets, which every list reads.
const MAX_TICKETS: usize = 20_000;
/// The discount of a prepared ticket's voucher.
const PREPARED_PERCENT: f64 = 10.0;
/// The first connection's number.
const FIRST_CONNECTION: i64 = 500_001;

/// The number of a new ticket, prepared or not.
pub(super) fn next_ticket_number(change: &Change) -> Result<i64, ApiError> {
    Ok(change.next_number(TICKET_COUNTER, FIRST_TICKET)?)
}

/// The content of a new ticket.
#[derive(Debug, Clone)]
pub(super) struct NewTicket {
    pub(super) vin: Option<String>,
    pub(super) vehicle_model_id: Option<i64>,
    pub(super) vehicle_model_variant_id: Option<i64>,
    pub(super) connector_id: i64,
    pub(super) product_ids: Vec<i64>,
    pub(super) product_prerequisites: Vec<PrerequisiteAnswer>,
    pub(super) metadata: Map<String, Value>,
    pub(super) prepared_ticket_id: Option<Uuid>,
    pub(super) reference: Option<String>,
    pub(super) voucher: Option<String>,
    pub(super) confirmed_unattended_service: Option<bool>,
}

/// The discount of a voucher, in percent: one of the catalogue, that of the prepared ticket which the caller names, or
/// that of a ticket which is prepared for the customer.
pub(super) fn voucher_percent(
    read: &impl Read,
    catalogue: &Catalogue,
    voucher: Option<&str>,
    named: Option<&PreparedTicket>,
    violations: &mut Violations,
) -> Result<f64, StoreError> {
    let Some(voucher) = voucher else { return Ok(0.0) };
    if let Some(percent) = catalogue.voucher(voucher) {
        return Ok(percent);
    }
    let has_it = |prepared: &PreparedTicket| prepared.voucher_code.as_deref() == Some(voucher);
    let is_for_customer = |prepared: &PreparedTicket| {
        !prepared.is_picked_up && prepared.customer_id == catalogue.customer.id && has_it(prepared)
    };
    if named.is_some_and(has_it) || read.all()?.iter().any(is_for_customer) {
        return Ok(PREPARED_PERCENT);
    }
    violations.add("voucher", "there is no such voucher");
    Ok(0.0)
}

impl NewTicket {
    /// The prepared ticket that the new ticket continues.
    fn prepared(
        &self,
        change: &Change,
        catalogue: &Catalogue,
        violations: &mut Violations,
    ) -> Result<Option<PreparedTicket>, StoreError> {
        const FIELD: &str = "prepared_ticket_id";
        let Some(id) = self.prepared_ticket_id else { return Ok(None) };
        let found: Option<PreparedTicket> = change.get(id.as_bytes())?;
        let Some(prepared) = found else {
            violations.add(FIELD, "there is no such prepared ticket");
            return Ok(None);
        };
        let is_of_vehicle = match (&prepared.vin, &self.vin) {
            (Some(own), Some(vin)) => own.eq_ignore_ascii_case(vin),
            _ => true,
        };
        violations.check(is_of_vehicle, "vin", "differs from the prepared ticket's");
        let is_own = prepared.customer_id == catalogue.customer.id;
        violations.check(is_own, FIELD, "is prepared for another customer");
        Ok(Some(prepared))
    }

    /// Refuses a ticket that would be one too many, or the second pending one on its connector.
    fn check_room(&self, change: &Change) -> Result<(), ApiError> {
        let all = change.all::<Ticket>()?;
        if all.len() >= MAX_TICKETS {
            let detail = format!(
                "The sandbox stores at most {MAX_TICKETS} tickets; begin with a new state directory."
            );
            return Err(ApiError::conflict("full", "Full", detail));
        }
        let is_pending = |ticket: &Ticket| {
            ticket.connector_id == self.connector_id && ticket.state == TicketState::Pending
        };
        if let Some(pending) = all.iter().find(|ticket| is_pending(ticket)) {
            return Err(ApiError::new(
                axum::http::StatusCode::BAD_REQUEST,
                "pending-ticket",
                "The connector has a pending ticket",
                format!("Ticket {} is pending on the connector.", pending.id),
            ));
        }
        Ok(())
    }

    /// Stores the ticket, unless there are violations, those that the caller has found among them.
    pub(super) fn create(
        self,
        change: &Change,
        caller: &Subject,
        catalogue: &Catalogue,
        mut violations: Violations,
    ) -> Result<Ticket, ApiError> {
        let is_known = change.connector(self.connector_id)?.is_some();
        violations.check(is_known, "connector_id", "there is no such connector");
        if is_known && !caller.sees(self.connector_id) {
            return Err(ApiError::forbidden("The token belongs to another connector."));
        }
        let prepared = self.prepared(change, catalogue, &mut violations)?;
        let own = prepared.as_ref().and_then(|prepared| prepared.voucher_code.clone());
        let voucher = self.voucher.clone().or(own);
        let voucher_percent =
            voucher_percent(change, catalogue, voucher.as_deref(), prepared.as_ref(), &mut violations)?;
        violations.finish()?;
        self.check_room(change)?;
        let (id, uuid) = match &prepared {
            // the prepared ticket becomes the new ticket, once
            Some(prepared) if !prepared.is_picked_up => {
                change.put(&PreparedTicket { is_picked_up: true, ..prepared.clone() })?;
                (prepared.ticket_number, prepared.id)
            }
            _ => (next_ticket_number(change)?, Uuid::new_v4()),
        };
        let ticket = Ticket {
            id,
            uuid,
            state: TicketState::Pending,
            vin: self.vin.or_else(|| prepared.as_ref().and_then(|prepared| prepared.vin.clone())),
            vehicle_model_id: self.vehicle_model_id,
            vehicle_model_variant_id: self.vehicle_model_variant_id,
            product_ids: self.product_ids,
            connector_id: self.connector_id,
            chat_id: Uuid::new_v4(),
            metadata: self.metadata,
            reference: self.reference,
            voucher,
            voucher_percent,
            prepared_ticket_id: prepared.as_ref().map(|prepared| prepared.id),
            preparer_external_reference: prepared.map(|prepared| prepared.preparer_external_reference),
            confirmed_unattended_service: self.confirmed_unattended_service,
            product_prerequisites: self.product_prerequisites,
            customer: caller.id.clone(),
            operator: None,
            operator_id: None,
            connection_id: None,
            connection_uuid: None,
            cancelled_reason: None,
            cancel_reason_id: None,
            outsourced_to: None,
            csat: None,
            created_at: OffsetDateTime::now_utc(),
            joined_at: None,
            closed_at: None,
        };
        change.put(&ticket)?;
        change.index(ticket.uuid, ticket.id)?;
        Ok(ticket)
    }
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
    /// Cancelled, with an optional reason, as text and as the number in the partners' list.
    Cancel(Option<String>, Option<i32>),
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
        End::Cancel(reason, id) => {
            ticket.state = TicketState::Cancelled;
            ticket.cancelled_reason = reason;
            ticket.cancel_reason_id = id;
        }
        End::Outsource(to) => {
            ticket.state = TicketState::Outsourced;
            ticket.outsourced_to = to;
        }
    }
    ticket.closed_at = ticket.has_ended().then(OffsetDateTime::now_utc);
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
    let event = match ticket.state {
        TicketState::Pending => EventKind::Created,
        TicketState::InProgress => EventKind::Joined,
        TicketState::Outsourced => EventKind::Outsourced,
        TicketState::Closed => EventKind::Closed,
        TicketState::Cancelled => EventKind::Cancelled,
    };
    app.hub.changed(Changed::Ticket(ticket.id));
    app.hub.changed(Changed::Event(event, ticket.id));
}
