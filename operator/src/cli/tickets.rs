//! The subcommands about tickets, and the connection of a ticket.

use connector_agent::cli::clean;
use connector_agent::print_line;

use super::args::TicketArgs;
use super::failure::{Failure, FailureKind};
use crate::client::{Connection, ConnectionSettings, Operator, Ticket};

/// `tickets`.
pub(super) async fn list(operator: &Operator) -> Result<(), Failure> {
    let tickets = operator.tickets().await?;
    if tickets.is_empty() {
        print_line!("There is no ticket.");
        return Ok(());
    }
    print_line!("{}", row(["TICKET", "STATE", "VIN", "CONNECTOR", "CREATED AT"]));
    for ticket in &tickets {
        print_line!("{}", row_of(ticket));
    }
    Ok(())
}

fn row([number, state, vin, connector, created]: [&str; 5]) -> String {
    format!("{number:<10}  {state:<12}  {vin:<17}  {connector:<36}  {created}")
}

/// The row of a ticket. Its texts are the cloud's.
fn row_of(ticket: &Ticket) -> String {
    let connector = ticket.connector_uuid.map(|uuid| uuid.to_string());
    row([
        &number(ticket),
        &clean(&ticket.state.as_deref().unwrap_or("-").replace('_', " ")),
        &clean(ticket.vin.as_deref().unwrap_or("-")),
        connector.as_deref().unwrap_or("-"),
        &clean(ticket.created_at.as_deref().unwrap_or("-")),
    ])
}

/// `join`.
pub(super) async fn join(operator: &Operator, args: &TicketArgs) -> Result<(), Failure> {
    let ticket = joined_ticket(operator, args).await?;
    print_line!("Ticket {} is in progress for {}.", number(&ticket), vehicle(&ticket));
    Ok(())
}

/// `complete`.
pub(super) async fn complete(operator: &Operator, args: &TicketArgs) -> Result<(), Failure> {
    let ticket = find_ticket(operator.in_progress_tickets().await?, args)?;
    operator.complete(&ticket.id).await?;
    print_line!("Ticket {} is completed.", number(&ticket));
    Ok(())
}

/// `cancel`.
pub(super) async fn cancel(operator: &Operator, args: &TicketArgs, reason: &str) -> Result<(), Failure> {
    let ticket = find_ticket(operator.in_progress_tickets().await?, args)?;
    operator.cancel(&ticket.id, reason).await?;
    print_line!("Ticket {} is cancelled.", number(&ticket));
    Ok(())
}

/// Joins the ticket if necessary, and connects to its connector.
pub(super) async fn connect(operator: &Operator, args: &TicketArgs) -> Result<Connection, Failure> {
    let ticket = joined_ticket(operator, args).await?;
    let uuid = ticket.connection().ok_or_else(|| {
        let what = format!("ticket {} has no connection", number(&ticket));
        Failure::new(FailureKind::Ticket, what, "check that the cloud relays connections")
    })?;
    let settings = ConnectionSettings { take_over: args.take_over, ..ConnectionSettings::default() };
    Ok(operator.connect_with(uuid, settings).await?)
}

/// The ticket in progress, or else a pending one, which is joined.
async fn joined_ticket(operator: &Operator, args: &TicketArgs) -> Result<Ticket, Failure> {
    let in_progress = operator.in_progress_tickets().await?;
    if !in_progress.is_empty()
        && let Ok(ticket) = find_ticket(in_progress, args)
    {
        return Ok(ticket);
    }
    let ticket = find_ticket(operator.tickets().await?, args)?;
    Ok(operator.join(&ticket.id, &args.operator_id).await?)
}

/// The only ticket that matches the arguments.
fn find_ticket(mut tickets: Vec<Ticket>, args: &TicketArgs) -> Result<Ticket, Failure> {
    tickets.retain(|ticket| {
        args.ticket.as_deref().is_none_or(|name| ticket.is_called(name))
            && args.vin.as_deref().is_none_or(|vin| ticket.vin.as_deref() == Some(vin))
    });
    if tickets.len() > 1 {
        let numbers: Vec<String> = tickets.iter().map(number).collect();
        let what = format!("{} tickets match: {}", numbers.len(), numbers.join(", "));
        return Err(Failure::new(FailureKind::Ticket, what, "select one with --ticket"));
    }
    tickets.pop().ok_or_else(|| {
        let what = match (&args.ticket, &args.vin) {
            (Some(name), _) => format!("there is no ticket {name}"),
            (None, Some(vin)) => format!("there is no ticket for vehicle {vin}"),
            (None, None) => "there is no ticket".to_owned(),
        };
        let advice = "list the tickets with `tickets`; if yours is missing, the customer has to create it";
        Failure::new(FailureKind::Ticket, what, advice)
    })
}

fn number(ticket: &Ticket) -> String {
    clean(ticket.ticket_number.as_deref().unwrap_or(&ticket.id))
}

fn vehicle(ticket: &Ticket) -> String {
    ticket
        .vin
        .as_ref()
        .map_or_else(|| "a vehicle without a VIN".to_owned(), |vin| format!("vehicle {}", clean(vin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_one_row_whatever_its_texts_are() {
        let hostile = "a\u{1b}[2J\nTICKET\u{202e}";
        let ticket: Ticket = serde_json::from_value(serde_json::json!({
            "id": hostile, "state": hostile, "vin": hostile, "created_at": "x".repeat(100_000),
        }))
        .unwrap();
        let texts = [row_of(&ticket), number(&ticket), vehicle(&ticket)];
        assert!(texts.iter().all(|text| text.lines().count() == 1 && text.len() < 2_000), "{texts:?}");
        assert!(!texts.iter().any(|text| text.contains(['\u{1b}', '\u{202e}'])), "{texts:?}");
    }
}
