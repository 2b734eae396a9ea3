//! The job of the customer and the operator in a trial.

use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::Switch;
use serde_json::json;

use super::patience::patiently;
use super::world::{BIT_RATE, World};
use crate::scenario::{
    FIRMWARE_ADDRESS, connect, create_ticket, generate_firmware, holds_firmware, log_in_customer,
    log_in_operator,
};
use crate::vehicle::catalogue::EcuRecord;
use connector_operator::client::isotp_channel;
use connector_operator::client::{Channel, Connection, Customer, Operator, Timing};
use connector_operator::flash::{Firmware, flash};

/// The operator's name for the bus.
const BUS: &str = "HS";

/// A customer and an operator, logged in.
pub(super) struct People {
    customer: Customer,
    operator: Operator,
}

impl People {
    pub(super) async fn log_in(world: &World) -> anyhow::Result<Self> {
        Ok(Self {
            customer: log_in_customer(&world.cloud).await?,
            operator: log_in_operator(&world.cloud).await?,
        })
    }
}

/// A ticket in progress, and the operator at work on it.
pub(super) struct Job {
    operator: Operator,
    ticket_id: String,
    connection: Connection,
    engine: EcuRecord,
    channel: Channel,
}

impl Job {
    /// Starts a job with people who are logged in already.
    pub(super) async fn start_by(world: &World, people: &People) -> anyhow::Result<Self> {
        patiently("there is no session", Self::begin(world, people)).await
    }

    /// Creates a ticket, joins it, and sets up the bus and a channel to the engine's ECU. The ticket
    /// contains the VIN: an ECU that was interrupted while it was programmed may not report it.
    pub(super) async fn start(world: &World) -> anyhow::Result<Self> {
        let people = patiently("customer and operator are not logged in", People::log_in(world)).await?;
        Self::start_by(world, &people).await
    }

    async fn begin(world: &World, people: &People) -> anyhow::Result<Self> {
        let People { customer, operator } = people;
        let vin = vin(world)?;
        let (ticket, _) = create_ticket(customer, &world.cloud, Some(&vin), false, "trial").await?;
        let (ticket, connection) = connect(operator, &ticket.id, "trial operator").await?;
        let bus = json!({"bus_name": BUS, "can_bus": {
            "pin_plus": 6, "pin_min": 14, "can_protocol": "isotp", "can_bit_rate": BIT_RATE, "transceiver": "high",
        }});
        connection.configure_buses(vec![serde_json::from_value(bus)?]).await?;
        let ecus = &world.record.ecus;
        let engine = ecus.iter().find(|ecu| ecu.address.request.raw() == 0x7E0);
        let engine = engine.context("the vehicle has no engine")?.clone();
        let address = &engine.address;
        let config =
            isotp_channel(BUS, address.request, Some(address.response), address.extended, Switch::Enabled);
        let channel = connection.open_isotp(config).await?;
        Ok(Self { operator: operator.clone(), ticket_id: ticket.id, connection, engine, channel })
    }

    /// Sends every recorded request to the engine. Returns an error unless every answer equals the recorded
    /// one.
    pub(super) async fn read(&self) -> anyhow::Result<usize> {
        patiently("the engine was not read", self.ask_all()).await
    }

    async fn return_to_default_session(&self) -> anyhow::Result<()> {
        self.channel.request(&[0x10, 0x01], &Timing::default()).await?;
        Ok(())
    }

    async fn ask_all(&self) -> anyhow::Result<usize> {
        for exchange in &self.engine.exchanges {
            // a request may be recorded twice: the simulated ECU gives the first answer
            let first = self.engine.exchanges.iter().find(|other| other.request == exchange.request);
            let expected = first.map(|first| first.response.as_slice()).unwrap_or_default();
            let answer = self.channel.request(&exchange.request, &Timing::default()).await?;
            anyhow::ensure!(answer.data == expected, "the engine answered {:02X?}", answer.data);
        }
        anyhow::ensure!(!self.engine.exchanges.is_empty(), "no request to the engine is recorded");
        Ok(self.engine.exchanges.len())
    }

    /// Waits until the engine answers again, then reads it as [`Job::read`] does.
    pub(super) async fn read_again(&self) -> anyhow::Result<usize> {
        let patience = Timing { allowance: Duration::from_secs(2), ..Timing::default() };
        patiently("the engine does not answer again", async {
            while let Err(error) = self.channel.request(&[0x3E, 0x00], &patience).await {
                tracing::debug!(%error, "the engine does not answer yet");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        })
        .await?;
        self.read().await
    }

    /// Flashes the engine's ECU, and compares its memory with the firmware.
    pub(super) async fn flash(&self, world: &World, bytes: usize) -> anyhow::Result<()> {
        let data = generate_firmware(bytes, 1);
        let firmware = Firmware { address: FIRMWARE_ADDRESS, data: &data };
        flash(&self.channel, firmware, &Timing::default(), &mut |_| {}).await?;
        let vehicle = world.vehicle.as_ref().context("there is no vehicle")?;
        let memory = vehicle.memory(self.engine.address);
        anyhow::ensure!(holds_firmware(&memory, &data), "the engine does not hold the firmware");
        Ok(())
    }

    /// The number of PDUs to the vehicle and back.
    pub(super) fn pdus(&self) -> u64 {
        self.connection.counters().pdus_sent() + self.connection.counters().pdus_received()
    }

    /// Completes the ticket.
    pub(super) async fn complete(self) -> anyhow::Result<()> {
        patiently("the ticket is not completed", async { Ok(self.operator.complete(&self.ticket_id).await?) })
            .await
    }

    /// Cancels the ticket.
    pub(super) async fn cancel(self) -> anyhow::Result<()> {
        patiently("the ticket is not cancelled", async {
            Ok(self.operator.cancel(&self.ticket_id, "trial").await?)
        })
        .await
    }
}

/// Waits until the connector has reported the vehicle's VIN to the cloud.
pub(super) async fn vin_is_reported(world: &World) -> anyhow::Result<()> {
    let cloud = &world.cloud;
    let vin = vin(world)?;
    patiently("the VIN is not reported", async {
        let customer = log_in_customer(cloud).await?;
        let mut watch = customer.watch_connector(cloud.connector_id).await?;
        watch.until(|update| update.is_online && update.vin_number.as_ref() == Some(&vin)).await?;
        Ok(())
    })
    .await
}

fn vin(world: &World) -> anyhow::Result<String> {
    world.record.vin.map(|vin| vin.as_str().to_owned()).context("the vehicle has no VIN")
}

/// Runs a job that only reads the engine.
pub(super) async fn short(world: &World) -> anyhow::Result<()> {
    let people = patiently("customer and operator are not logged in", People::log_in(world)).await?;
    short_by(world, &people).await
}

/// Runs a job that only reads the engine, with people who are logged in already.
pub(super) async fn short_by(world: &World, people: &People) -> anyhow::Result<()> {
    let job = Job::start_by(world, people).await?;
    // the session before may have been killed while it programmed the ECU
    patiently("the engine does not return to its default session", job.return_to_default_session()).await?;
    job.read().await?;
    job.complete().await
}
