//! The customer API: the table of its operations, and a file for each kind of resource.

pub(super) mod bodies;
mod cart;
mod companies;
pub(super) mod connectors;
mod employees;
mod historical_tickets;
mod login;
mod messenger;
mod products;
mod tickets;
mod vehicles;

use axum::http::Method;

use super::api::Access::{Customer, Public, Token};
use super::api::Mark::{Assumed, Printed, Read};
use super::api::{Operation, row};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

/// The operations of the customer API. `Read` and `Assumed` mark paths that the documents do not print.
#[rustfmt::skip]
pub(super) fn operations() -> Vec<Operation> {
    vec![
        // connectors
        row(GET, "/v1/connectors", Read, Token, 200, "The connectors of the user.").to(connectors::list),
        row(GET, "/v1/connectors/{connectorId}", Read, Token, 200, "A connector.").to(connectors::by_id),
        row(GET, "/v2/connectors/{connectorUUID}", Assumed, Token, 200, "A connector by its UUID.").to(connectors::by_uuid),
        row(POST, "/v2/connectors/{connectorUUID}/actions/dismiss-call-for-attention", Assumed, Token, 204, "Ends the call for attention.").to(connectors::dismiss_call_for_attention),
        row(GET, "/v1/connectors/{connectorId}/active-ticket", Assumed, Token, 200, "The active ticket of a connector.").to(connectors::active_ticket),
        // products
        row(GET, "/v1/product-groups", Read, Token, 200, "The product groups for a vehicle.").to(products::groups),
        row(GET, "/v1/product-bundles", Read, Token, 200, "The product bundles for a vehicle.").to(products::bundles),
        row(GET, "/v1/products", Assumed, Token, 200, "The products for a vehicle.").to(products::products),
        row(POST, "/v1/favorite-products", Assumed, Customer, 201, "Adds a favourite.").to(products::add_favorite),
        row(DELETE, "/v1/favorite-products/{id}", Assumed, Customer, 204, "Removes a favourite.").to(products::remove_favorite),
        row(GET, "/v1/product-prerequisites", Assumed, Token, 200, "The questions that products ask.").to(products::prerequisites),
        // tickets
        row(POST, "/v1/tickets/{ticketId}/csat", Assumed, Customer, 200, "The satisfaction with a ticket.").to(tickets::csat),
        row(GET, "/v1/tickets/{ticketId}/notes", Read, Customer, 200, "The notes of a ticket.").to(tickets::notes),
        row(GET, "/v1/historical-tickets", Read, Customer, 200, "The ended tickets.").to(historical_tickets::list),
        row(GET, "/v1/historical-tickets/{historicalTicketId}", Assumed, Customer, 200, "An ended ticket.").to(historical_tickets::one),
        row(GET, "/v1/prepared-tickets", Read, Customer, 200, "The prepared tickets for a VIN.").to(tickets::prepared),
        row(POST, "/v1/tickets", Printed, Customer, 201, "Creates a ticket.").to(tickets::create),
        // vehicles
        row(GET, "/v1/serviced-vehicles", Assumed, Customer, 200, "The serviced vehicles, the latest first.").to(vehicles::serviced),
        row(GET, "/v1/vehicles/search", Read, Token, 200, "The vehicle with a VIN.").to(vehicles::search),
        row(GET, "/v1/vehicles/makes", Assumed, Token, 200, "The makes.").to(vehicles::makes),
        row(GET, "/v1/vehicles/model-groups", Assumed, Token, 200, "The model groups of a make.").to(vehicles::groups),
        row(GET, "/v1/vehicles/model-groups/{modelGroupId}", Assumed, Token, 200, "A model group.").to(vehicles::group),
        row(GET, "/v1/vehicles/models", Assumed, Token, 200, "The models of a group.").to(vehicles::models),
        row(GET, "/v1/vehicles/models/{modelId}", Assumed, Token, 200, "A model.").to(vehicles::model),
        row(GET, "/v1/vehicles/model-variants", Assumed, Token, 200, "The variants of a model.").to(vehicles::variants),
        row(GET, "/v1/vehicles/model-variants/{modelVariantId}", Assumed, Token, 200, "A variant.").to(vehicles::variant),
        // cart
        row(POST, "/v1/cart/calculate-prices", Read, Token, 200, "The price of a cart.").to(cart::calculate),
        // users, employees, customer, branding, service center
        row(GET, "/v1/users/me", Assumed, Customer, 200, "The user.").to(companies::user),
        row(GET, "/v1/employees", Read, Customer, 200, "The employees.").to(employees::list),
        row(POST, "/v1/employees", Read, Customer, 201, "Adds an employee.").to(employees::add),
        row(GET, "/v1/employees/{employeeId}", Assumed, Customer, 200, "An employee.").to(employees::one),
        row(PUT, "/v1/employees/{employeeId}", Assumed, Customer, 200, "Changes an employee.").to(employees::change),
        row(GET, "/v1/customers/me", Read, Customer, 200, "The customer.").to(companies::own_customer),
        row(PUT, "/v1/customers/me", Read, Customer, 200, "Changes the customer.").to(companies::edit_customer),
        row(GET, "/v1/branding/me", Assumed, Customer, 200, "The branding.").to(companies::branding),
        row(GET, "/v1/service-center", Assumed, Customer, 200, "The service center.").to(companies::service_center),
        row(GET, "/v1/service-center/state", Assumed, Customer, 200, "Whether the service center accepts tickets.").to(companies::state),
        row(GET, "/v1/customer-wallet", Read, Customer, 200, "The prepaid wallet.").to(companies::wallet),
        // authentication
        row(POST, "/legacy/api/mobile/authentication/authenticate/forgot/password", Read, Public, 200, "A forgotten password.").to(login::forgotten_password),
        row(POST, "/v1/authenticate/pincode", Read, Public, 200, "Logs in by connector number.").to(login::by_id),
        row(POST, "/v2/authenticate/pincode", Read, Public, 200, "Logs in by connector UUID.").to(login::by_uuid),
        row(POST, "/v1/authenticate/otp", Read, Public, 200, "Logs in by one-time password.").to(login::by_otp),
        // messenger
        row(POST, "/v1/translate", Read, Token, 201, "Translates a text.").to(messenger::translate),
        row(GET, "/v1/channels/{channelId}", Read, Token, 200, "A channel.").to(messenger::one),
        row(POST, "/v1/channels/{channelId}/actions/send-control-message", Read, Token, 200, "Pings the websockets of a channel.").to(messenger::send_control_message),
        row(POST, "/v1/channel-attachments", Read, Token, 201, "Announces an attachment.").to(messenger::attach),
        row(GET, "/v1/channel-attachments", Read, Token, 200, "An attachment.").to(messenger::attachment),
    ]
}
