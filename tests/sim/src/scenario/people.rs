//! The customer and the operator: their logins, and their way from a ticket to a connection.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cloud::Cloud;
use connector_operator::client::{Connection, Credentials, Customer, Operator, Ticket};

/// Logs in as the cloud's customer.
pub(crate) async fn log_in_customer(cloud: &Cloud) -> anyhow::Result<Customer> {
    let credentials = credentials(&cloud.customer);
    Ok(Customer::login(&cloud.api_url, &cloud.websocket_url, Some(&cloud.ca_file), credentials).await?)
}

/// Logs in as the cloud's operator.
pub(crate) async fn log_in_operator(cloud: &Cloud) -> anyhow::Result<Operator> {
    let credentials = credentials(&cloud.operator);
    Ok(Operator::login(&cloud.api_url, &cloud.websocket_url, Some(&cloud.ca_file), credentials).await?)
}

fn credentials(account: &crate::cloud::Credentials) -> Credentials {
    Credentials { client_id: account.client_id.clone(), client_secret: account.client_secret.clone() }
}

/// Creates a ticket for the cloud's first connector. Returns the ticket, and the name of the vehicle's model.
///
/// `is_read` is whether the connector has read the VIN.
pub(crate) async fn create_ticket(
    customer: &Customer,
    cloud: &Cloud,
    vin: Option<&str>,
    is_read: bool,
    reference: &str,
) -> anyhow::Result<(Ticket, Option<String>)> {
    let vehicle = match vin {
        Some(vin) => customer.find_vehicle(vin).await?,
        None => json!({}),
    };
    let part = |path: &str| vehicle.pointer(path).cloned().unwrap_or_default();
    let ticket = customer
        .create_ticket(&json!({
            "vin": vin,
            "vehicle_model_id": part("/model/id"),
            "vehicle_model_variant_id": part("/model_variant/id"),
            "connector_id": cloud.connector_id,
            "product_ids": [1],
            "metadata": {"vin_is_found_by_reader": is_read},
            "reference": reference,
        }))
        .await?;
    let model = vehicle.pointer("/model_variant/name").and_then(Value::as_str).map(str::to_owned);
    Ok((ticket, model))
}

/// Joins a ticket as the operator with this name, and connects to the connector.
pub(crate) async fn connect(
    operator: &Operator,
    ticket_id: &str,
    name: &str,
) -> anyhow::Result<(Ticket, Connection)> {
    let ticket = operator.join(ticket_id, name).await?;
    let uuid = ticket.connection().context("the ticket in progress has no connection")?;
    let connection = operator.connect(uuid).await?;
    Ok((ticket, connection))
}
