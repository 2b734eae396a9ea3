//! The configuration: one TOML file. `docs/connector-agent.example.toml` has every key and its default.
//!
//! [`Config`] is the whole file, `sections` its tables. `load` reads it: `parse` finds faults of the text,
//! and `check` finds contradictions and faults of the machine.

mod address;
mod bit_rates;
mod check;
mod cloud_tls;
mod configuration;
pub mod doip;
pub mod doip_device;
mod duration;
mod identity;
mod load;
mod log_filter;
mod parse;
mod pincode;
mod pincode_source;
mod ports;
mod problem;
mod proxy;
mod secret_file;
pub(crate) mod secrets;
mod sections;
mod ticket_state;
mod vin;

#[cfg(test)]
mod tests;

pub use address::{AddressError, ApiUrl, NumberedPath, ResourcePath, WebsocketUrl};
pub(crate) use bit_rates::CAN_BIT_RATES;
pub use bit_rates::{KLINE_BIT_RATES, KLINE_VIN_BIT_RATES};
pub use cloud_tls::CloudTlsError;
pub use configuration::Config;
pub(crate) use configuration::DEFAULT_PATH;
pub use identity::{ConnectorUuid, ConnectorUuidError};
pub(crate) use log_filter::log_filter;
pub(crate) use pincode::ChangeTime;
pub use pincode::{Pincode, PincodeError};
pub use ports::{CanPort, DoipPort, IsotpStack, KlinePort};
pub use problem::{ConfigError, ConfigProblem, Severity};
pub use proxy::{Proxy, ProxyCredentials, ProxyCredentialsError, ProxyUrl, ProxyUrlError};
pub use secret_file::SecretFileError;
pub use sections::{
    BusKind, CloudConfig, ConfiguredBus, ConnectorConfig, LogConfig, LogFormat, PathsConfig, PowerConfig,
    RelayConfig, VinConfig,
};
pub use ticket_state::TicketState;
pub use vin::{DEFAULT_KLINE_BUDGET, VinSettings};
