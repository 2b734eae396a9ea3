//! A connector online in a vehicle.

use std::time::Duration;

use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;
use connector_operator::client::{Channel, CloseReason, Connection, LinkState};
use connector_sim::vehicle::catalogue::{EcuAddress, VehicleRecord};
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use uuid::Uuid;

use super::{AgentSettings, Connector, Portal, Sandbox, TestAgent};
use crate::config::{configure, isotp};
use crate::{data, soon};

/// A silent bus of 500 kbit/s in real time.
pub fn bus() -> VirtualBus {
    VirtualBus::new(VirtualBusConfig { timer: TimerKind::Precise, ..VirtualBusConfig::default() })
}

/// Puts a vehicle of the file on the bus.
pub fn vehicle(record: &VehicleRecord, bus: &VirtualBus) -> Vehicle {
    let config = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record.clone()) };
    Vehicle::start(&config, bus)
}

/// Waits until the connection is closed; returns the reason.
pub async fn closed(connection: &Connection) -> CloseReason {
    let mut state = connection.state();
    let is_closed = |state: &LinkState| matches!(state, LinkState::Closed(_));
    let closed = soon("the connection's end", state.wait_for(is_closed)).await.unwrap().clone();
    match closed {
        LinkState::Closed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// An online connector in a vehicle, in real time.
pub struct Rig {
    pub sandbox: Sandbox,
    pub connector: Connector,
    pub bus: VirtualBus,
    pub record: VehicleRecord,
    pub vehicle: Vehicle,
    pub agent: TestAgent,
    pub portal: Portal,
}

impl Rig {
    /// An online connector in the vehicle of this platform. The connector has read the VIN.
    pub async fn start(platform: &str) -> Self {
        Self::start_in(Sandbox::start(1).await, platform, AgentSettings::default()).await
    }

    pub async fn start_in(sandbox: Sandbox, platform: &str, settings: AgentSettings) -> Self {
        let connector = sandbox.connectors[0].clone();
        let bus = bus();
        let record = data::record(platform);
        let vehicle = vehicle(&record, &bus);
        let agent = TestAgent::start(&sandbox, &connector, &bus, settings);
        let mut portal = sandbox.portal(&connector).await;
        portal.sees_online().await;
        if let Some(vin) = record.vin {
            // with more tests than cores, a simulated ECU may answer later than a real one
            while sandbox.identify(&connector).await["vin_number"] != vin.as_str() {}
            portal.sees_vin(vin.as_str()).await;
        }
        Self { sandbox, connector, bus, record, vehicle, agent, portal }
    }

    pub fn vin(&self) -> Option<&str> {
        self.record.vin.as_ref().map(|vin| vin.as_str())
    }

    /// A joined ticket for this vehicle, and its joined connection.
    pub async fn connect(&self) -> (String, Connection) {
        let ticket = self.sandbox.ticket(&self.connector, self.vin()).await;
        (ticket.id.clone(), self.join(ticket.connection().unwrap()).await)
    }

    pub async fn join(&self, connection: Uuid) -> Connection {
        soon("the connection", self.sandbox.operator.connect(connection)).await.unwrap()
    }

    /// A joined ticket, its connection with the bus configured, and a channel to the vehicle's first ECU.
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

    /// Moves the connector to another vehicle, and switches the ignition off and on until the cloud has the
    /// VIN.
    pub async fn swap(&mut self, platform: &str) {
        self.enter(platform).await;
        let vin = self.record.vin.unwrap();
        for attempt in 0..3 {
            if attempt > 0 {
                self.restart_ignition().await;
            }
            // with more tests than cores, a simulated ECU may answer later than a real one
            let seen = self.portal.sees_vin(vin.as_str());
            if tokio::time::timeout(Duration::from_secs(10), seen).await.is_ok() {
                return;
            }
        }
        panic!("the VIN of {platform} was not read");
    }

    /// Takes the connector to another vehicle, and switches the ignition on there.
    pub async fn enter(&mut self, platform: &str) {
        self.record = data::record(platform);
        let other = vehicle(&self.record, &self.bus);
        std::mem::replace(&mut self.vehicle, other).stop().await;
        self.restart_ignition().await;
    }

    async fn restart_ignition(&mut self) {
        self.agent.board.set_ignition(Some(false));
        self.portal.sees("the ignition off", |update| update["ignition"] == false).await;
        self.agent.board.set_ignition(Some(true));
    }

    /// Lowers the voltage and switches the ignition off; returns when the connector is offline.
    pub async fn falls_asleep(&mut self) {
        self.agent.board.set_voltage(Some(11.5));
        self.agent.board.set_ignition(Some(false));
        self.portal
            .sees("the low voltage", |update| update["voltage"] == 11.5 && update["ignition"] == false)
            .await;
        self.portal.sees("the connector offline", |update| update["is_online"] == false).await;
    }

    /// Waits until the connector is online again.
    pub async fn wakes(&mut self) {
        self.portal.sees("the connector online", |update| update["is_online"] == true).await;
    }
}
