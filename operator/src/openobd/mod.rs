//! The gateway for scripts of the vendor's client `openobd`: all services of its gRPC protocol, on the connections of
//! tickets.

mod answers;
mod broker;
mod button;
mod channels;
mod configuration;
mod contexts;
mod endpoint;
mod functions;
mod gateway;
mod information;
mod mapping;
mod proto;
mod quality;
mod registry;
mod server;
mod services;
mod status;
mod tokens;
mod ui;

pub use answers::{Answers, AnswersError};
pub use gateway::OpenobdSettings;
pub use server::{OpenobdError, OpenobdServer, TlsFiles};
