//! The cloud: logging in, the REST resources, and the websocket link.

pub mod tls;
