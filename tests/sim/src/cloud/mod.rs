#![doc = include_str!("README.md")]

mod app;
mod catalogue;
mod certificates;
mod clock;
mod command;
mod connections;
mod hub;
pub(crate) mod load;
mod pricing;
mod random;
mod rest;
mod server;
mod store;
mod tokens;
mod views;
mod websocket;

pub use catalogue::CatalogueError;
pub use certificates::CertificateError;
pub(crate) use command::{Args, run};
pub use server::{Cloud, CloudConfig, CloudError, Credentials};
pub use store::{ConnectorSeed, StoreError};
