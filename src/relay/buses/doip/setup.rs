//! Checks the configuration of a `doip_bus`. Errors list the ports and values that are supported.

use crate::config::DoipPort;
use crate::config::doip::{NETWORK_CONFIGURATIONS, NetworkConfig};
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::{invalid, unknown_pins};
use crate::relay::wire::request::DoipBusConfig;
use crate::vehicle::hardware::Hardware;

/// The vendor's number of a network configuration is that of the table plus this.
const VENDORS_OFFSET: u16 = 3000;

/// A DoIP bus that an operator requested, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DoipBusSetup {
    pub(crate) name: String,
    pub(crate) port: DoipPort,
    /// The number of the network configuration.
    pub(crate) number: u8,
    pub(crate) network: NetworkConfig,
}

impl DoipBusSetup {
    pub(crate) fn new(name: &str, config: &DoipBusConfig, hardware: &Hardware) -> Result<Self, Problem> {
        let wanted = config.doip_network_configuration;
        let number = u8::try_from(wanted.checked_sub(VENDORS_OFFSET).unwrap_or(wanted)).ok();
        let Some(number) = number.filter(|number| NETWORK_CONFIGURATIONS.contains(number)) else {
            let detail = format!(
                "Bus {name:?}: doip_network_configuration {wanted} is not one of 3001 to 3009, or of 1 to 9."
            );
            return Err(invalid(detail));
        };
        let option = config.doip_option;
        let pins = match option {
            1 => [1, 9],
            2 => [3, 11],
            _ => return Err(invalid(format!("Bus {name:?}: doip_option {option} is neither 1 nor 2."))),
        };
        let Some(port) = hardware.doip_ports.iter().find(|port| port.pins == pins) else {
            let has: Vec<_> = hardware
                .doip_ports
                .iter()
                .map(|port| format!("{} and {}", port.pins[0], port.pins[1]))
                .collect();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            let [first, second] = pins;
            return Err(unknown_pins(format!(
                "Bus {name:?}: no DoIP interface is at pins {first} and {second} (option {option}); this connector has: {has}."
            )));
        };
        let network = hardware.doip.network(number);
        Ok(Self { name: name.to_owned(), port: port.clone(), number, network })
    }
}
