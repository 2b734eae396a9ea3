//! The sandbox's own resources, below `/sandbox`: what the documents do not print, but tests and tools need.

mod connectors;
pub(super) mod messenger;
mod paging;
mod partner_tickets;
mod tickets;

use axum::Router;

use crate::cloud::app::App;

pub(super) use messenger::MAX_UPLOAD;

/// The beginning of the addresses of uploads, whose bodies are longer than others.
pub(super) const UPLOADS: &str = "/sandbox/v1/uploads/";

/// All routes below `/sandbox`.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(connectors::routes())
        .merge(messenger::routes())
        .merge(partner_tickets::routes())
        .merge(tickets::routes())
}
