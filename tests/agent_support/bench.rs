//! A connector in a vehicle, online.

use connector_agent::relay::wire::request::{BusConfig, CanBusConfig, IsotpChannelConfig, Switch};
use connector_hal::can::CanId;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;
use connector_sim::operator::client::{Channel, CloseReason, Connection, LinkState};
use connector_sim::vehicle::catalogue::{EcuAddress, VehicleRecord};
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use uuid::Uuid;

use super::{AgentSettings, Connector, Portal, Sandbox, TestAgent, catalogue, soon};

/// What the operator calls the bus.
pub const BUS: &str = "HS";

/// A silent bus of 500 kbit/s in real time.
pub fn bus() -> VirtualBus {
    VirtualBus::new(VirtualBusConfig { timer: TimerKind::Precise, ..VirtualBusConfig::default() })
}

/// Puts a vehicle of the file on the bus.
pub fn vehicle(record: &VehicleRecord, bus: &VirtualBus) -> Vehicle {
    let config = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record.clone()) };
    Vehicle::start(&config, bus)
}

/// An identifier as the protocol writes it.
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
        padding: Default::default(),
        padding_byte: None,
        keep_alive: Switch::Disabled,
        block_size: None,
        st_min: None,
        max_age_ms: None,
        p2_ms: None,
    }
}

/// The one bus that the connector has.
pub async fn configure(connection: &Connection) {
    let can_bus = CanBusConfig {
        pin_plus: 6,
        pin_min: 14,
        can_protocol: "isotp".to_owned(),
        can_bit_rate: 500_000,
        transceiver: None,
        data_bit_rate: None,
    };
    let bus = BusConfig { bus_name: BUS.to_owned(), can_bus: Some(can_bus), ..BusConfig::default() };
    soon("the bus", connection.configure_buses(vec![bus])).await.unwrap();
}

/// Waits until the connection is over; gives the reason.
pub async fn closed(connection: &Connection) -> CloseReason {
    let mut state = connection.state();
    let is_closed = |state: &LinkState| matches!(state, LinkState::Closed(_));
    let closed = soon("the connection's end", state.wait_for(is_closed)).await.unwrap().clone();
    match closed {
        LinkState::Closed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

pub struct Bench {
    pub sandbox: Sandbox,
    pub connector: Connector,
    pub bus: VirtualBus,
    pub record: VehicleRecord,
    pub vehicle: Vehicle,
    pub agent: TestAgent,
    pub portal: Portal,
}

impl Bench {
    /// A connector online in the vehicle of this platform, whose VIN has been read.
    pub async fn start(platform: &str) -> Self {
        Self::start_in(Sandbox::start(1).await, platform, AgentSettings::default()).await
    }

    pub async fn start_in(sandbox: Sandbox, platform: &str, settings: AgentSettings) -> Self {
        let connector = sandbox.connectors[0].clone();
        let bus = bus();
        let record = catalogue().find(platform).unwrap().clone();
        let vehicle = vehicle(&record, &bus);
        let agent = TestAgent::start(&sandbox, &connector, &bus, settings);
        let mut portal = sandbox.portal(&connector).await;
        portal.sees_online().await;
        if let Some(vin) = record.vin {
            // with more tests than cores, a simulated ECU may answer later than any real one
            while sandbox.identify(&connector).await["vin_number"] != vin.as_str() {}
            portal.sees_vin(vin.as_str()).await;
        }
        Self { sandbox, connector, bus, record, vehicle, agent, portal }
    }

    pub fn vin(&self) -> Option<&str> {
        self.record.vin.as_ref().map(|vin| vin.as_str())
    }

    /// A joined ticket for this vehicle, and its connection, joined too.
    pub async fn connect(&self) -> (String, Connection) {
        let ticket = self.sandbox.ticket(&self.connector, self.vin()).await;
        (ticket.id.clone(), self.join(ticket.connection().unwrap()).await)
    }

    pub async fn join(&self, connection: Uuid) -> Connection {
        soon("the connection", self.sandbox.operator.connect(connection)).await.unwrap()
    }

    /// The same with the bus configured and a channel to the vehicle's first ECU.
    pub async fn session(&self) -> (String, Connection, Channel) {
        let (ticket, connection) = self.connect().await;
        configure(&connection).await;
        let channel = soon("the channel", connection.open_isotp(isotp(self.ecu()))).await.unwrap();
        (ticket, connection, channel)
    }

    /// The vehicle's first ECU.
    pub fn ecu(&self) -> EcuAddress {
        self.record.ecus[0].address
    }
}
