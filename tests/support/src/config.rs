//! Configurations of buses and channels, as an operator sends them.

use connector_agent::relay::wire::request::{
    BusConfig, CanBusConfig, IsotpChannelConfig, PaddingConfig, Switch,
};
use connector_hal::can::CanId;
use connector_operator::client::Connection;
use connector_sim::vehicle::catalogue::EcuAddress;
use serde_json::{Value, json};

use crate::soon;

/// The name of the CAN bus.
pub const BUS: &str = "HS";

/// The CAN bus at pins 6 and 14, at 500 kbit/s.
pub fn can_bus() -> BusConfig {
    can_bus_with(None)
}

/// The CAN bus at pins 6 and 14, at 500 kbit/s, and with CAN FD at this bit rate.
pub fn fd_bus(data_bit_rate: u32) -> BusConfig {
    can_bus_with(Some(data_bit_rate))
}

fn can_bus_with(data_bit_rate: Option<u32>) -> BusConfig {
    let can_bus = CanBusConfig {
        pin_plus: 6,
        pin_min: 14,
        can_protocol: "isotp".to_owned(),
        can_bit_rate: 500_000,
        transceiver: None,
        data_bit_rate,
        verify: true,
    };
    BusConfig { bus_name: BUS.to_owned(), can_bus: Some(can_bus), ..BusConfig::default() }
}

/// [`can_bus`] as JSON.
pub fn hs() -> Value {
    json!({"bus_name": BUS, "can_bus": {"pin_plus": 6, "pin_min": 14, "can_protocol": "isotp",
           "can_bit_rate": 500_000}})
}

/// A K-line at pin 7.
pub fn kline_bus(protocol: &str) -> Value {
    json!({"bus_name": "K", "kline_bus": {"pin": 7, "kline_protocol": protocol, "kline_bit_rate": "10400"}})
}

/// DoIP at pins 3 and 11, with this network configuration.
pub fn doip_bus(network_configuration: u8) -> Value {
    json!({"bus_name": "ETH", "doip_bus": {"doip_option": 2,
           "doip_network_configuration": network_configuration}})
}

/// The number of an identifier as the relay's protocol writes it.
fn number(id: CanId) -> u32 {
    if id.is_extended() && id.raw() <= 0x7FF { id.to_socketcan() } else { id.raw() }
}

/// A channel to this ECU.
pub fn isotp(address: EcuAddress) -> IsotpChannelConfig {
    IsotpChannelConfig {
        response_id: Some(number(address.response)),
        extended_request_address: address.extended,
        extended_response_address: address.extended,
        ..functional(number(address.request))
    }
}

/// A functional channel.
pub fn functional(request_id: u32) -> IsotpChannelConfig {
    IsotpChannelConfig {
        bus_name: BUS.to_owned(),
        request_id,
        response_id: None,
        response_ids: Vec::new(),
        extended_request_address: None,
        extended_response_address: None,
        padding: PaddingConfig::Enabled,
        padding_byte: None,
        keep_alive: Switch::Disabled,
        block_size: None,
        st_min: None,
        frame_format: None,
        tx_dl: None,
        max_age_ms: None,
        p2_ms: None,
        p2_star_ms: None,
    }
}

/// Configures the CAN bus.
pub async fn configure(connection: &Connection) {
    soon("the bus", connection.configure_buses(vec![can_bus()])).await.unwrap();
}
