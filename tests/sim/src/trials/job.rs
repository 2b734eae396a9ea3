//! What customer and operator do in a trial.

use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::Switch;
use serde_json::json;

use super::patiently;
use super::world::{BIT_RATE, World};
use crate::operator::client::{Channel, Connection, Credentials, Customer, Operator, Timing};
use crate::operator::flash::{Firmware, flash};
use crate::operator::isotp;
use crate::vehicle::catalogue::EcuRecord;

/// What the operator calls the bus.
const BUS: &str = "HS";
/// Where the firmware goes in the ECU's memory.
const ADDRESS: u32 = 0x0800_0000;

/// A customer and an operator, logged in.
pub(super) struct People {
    customer: Customer,
    operator: Operator,
}

impl People {
    pub(super) async fn log_in(world: &World) -> anyhow::Result<Self> {
        let cloud = &world.cloud;
        let (api, websocket, ca) = (&cloud.api_url, &cloud.websocket_url, Some(cloud.ca_file.as_path()));
        Ok(Self {
            customer: Customer::login(api, websocket, ca, credentials(&cloud.customer)).await?,
            operator: Operator::login(api, websocket, ca, credentials(&cloud.operator)).await?,
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
    /// The same by people who are logged in already.
    pub(super) async fn start_by(world: &World, people: &People) -> anyhow::Result<Self> {
        patiently("there is no session", Self::begin(world, people)).await
    }

    /// Makes a ticket, joins it, and sets up bus and channel to the engine's ECU. The customer knows the VIN: a vehicle
    /// whose ECU was left in the middle of being programmed may not tell it.
    pub(super) async fn start(world: &World) -> anyhow::Result<Self> {
        let people = patiently("nobody is logged in", People::log_in(world)).await?;
        Self::start_by(world, &people).await
    }

    async fn begin(world: &World, people: &People) -> anyhow::Result<Self> {
        let People { customer, operator } = people;
        let vin = vin(world)?;
        let vehicle = customer.find_vehicle(&vin).await?;
        let id = |part: &str| vehicle.pointer(part).cloned().unwrap_or_default();
        let ticket = customer
            .create_ticket(&json!({
                "vin": vin,
                "vehicle_model_id": id("/model/id"),
                "vehicle_model_variant_id": id("/model_variant/id"),
                "connector_id": world.cloud.connector_id,
                "product_ids": [1],
                "metadata": {"vin_is_found_by_reader": false},
                "reference": "trial",
            }))
            .await?;
        let ticket = operator.join(&ticket.id, "trial operator").await?;
        let uuid = ticket.connection().context("the ticket in progress has no connection")?;
        let connection = operator.connect(uuid).await?;
        let bus = json!({"bus_name": BUS, "can_bus": {
            "pin_plus": 6, "pin_min": 14, "can_protocol": "isotp", "can_bit_rate": BIT_RATE, "transceiver": "high",
        }});
        connection.configure_buses(vec![serde_json::from_value(bus)?]).await?;
        let ecus = &world.record.ecus;
        let engine = ecus.iter().find(|ecu| ecu.address.request.raw() == 0x7E0);
        let engine = engine.context("the vehicle has no engine")?.clone();
        let address = &engine.address;
        let config = isotp(BUS, address.request, Some(address.response), address.extended, Switch::Enabled);
        let channel = connection.open_isotp(config).await?;
        Ok(Self { operator: operator.clone(), ticket_id: ticket.id, connection, engine, channel })
    }

    /// Asks the engine all that the real one was asked; every answer has to be that one's.
    pub(super) async fn read(&self) -> anyhow::Result<usize> {
        patiently("the engine was not read", self.ask_all()).await
    }

    async fn return_to_default_session(&self) -> anyhow::Result<()> {
        self.channel.request(&[0x10, 0x01], &Timing::default()).await?;
        Ok(())
    }

    async fn ask_all(&self) -> anyhow::Result<usize> {
        for exchange in &self.engine.exchanges {
            // the same request may be recorded twice: the simulated ECU answers as it did first
            let first = self.engine.exchanges.iter().find(|other| other.request == exchange.request);
            let expected = first.map(|first| first.response.as_slice()).unwrap_or_default();
            let answer = self.channel.request(&exchange.request, &Timing::default()).await?;
            anyhow::ensure!(answer.data == expected, "the engine answered {:02X?}", answer.data);
        }
        anyhow::ensure!(!self.engine.exchanges.is_empty(), "the engine was asked nothing");
        Ok(self.engine.exchanges.len())
    }

    /// The same as soon as the engine answers again.
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

    /// Programs the engine's ECU, and looks into its memory.
    pub(super) async fn flash(&self, world: &World, bytes: usize) -> anyhow::Result<()> {
        let mut random = fastrand::Rng::with_seed(1);
        let data: Vec<u8> = (0..bytes).map(|_| random.u8(..)).collect();
        let firmware = Firmware { address: ADDRESS, data: &data };
        flash(&self.channel, firmware, &Timing::default(), &mut |_| {}).await?;
        let vehicle = world.vehicle.as_ref().context("there is no vehicle")?;
        let memory = vehicle.memory(self.engine.address);
        let image = memory.last().context("the engine holds no firmware")?;
        let is_same = image.address == u64::from(ADDRESS) && image.data == data;
        anyhow::ensure!(is_same, "the engine does not hold the firmware");
        Ok(())
    }

    /// PDUs to the vehicle and back.
    pub(super) fn pdus(&self) -> u64 {
        self.connection.counters().pdus_sent() + self.connection.counters().pdus_received()
    }

    /// Done.
    pub(super) async fn complete(self) -> anyhow::Result<()> {
        patiently("the ticket is not completed", async { Ok(self.operator.complete(&self.ticket_id).await?) })
            .await
    }

    /// Given up.
    pub(super) async fn cancel(self) -> anyhow::Result<()> {
        patiently("the ticket is not cancelled", async {
            Ok(self.operator.cancel(&self.ticket_id, "trial").await?)
        })
        .await
    }
}

/// Waits until the connector has told the cloud the vehicle's VIN.
pub(super) async fn vin_is_told(world: &World) -> anyhow::Result<()> {
    let cloud = &world.cloud;
    let vin = vin(world)?;
    let (api, websocket, ca) = (&cloud.api_url, &cloud.websocket_url, Some(cloud.ca_file.as_path()));
    patiently("the VIN is not told", async {
        let customer = Customer::login(api, websocket, ca, credentials(&cloud.customer)).await?;
        let mut watch = customer.watch_connector(cloud.connector_id).await?;
        watch.until(|update| update.is_online && update.vin_number.as_ref() == Some(&vin)).await?;
        Ok(())
    })
    .await
}

fn vin(world: &World) -> anyhow::Result<String> {
    world.record.vin.map(|vin| vin.as_str().to_owned()).context("the vehicle has no VIN")
}

/// A whole short job.
pub(super) async fn short(world: &World) -> anyhow::Result<()> {
    let people = patiently("nobody is logged in", People::log_in(world)).await?;
    short_by(world, &people).await
}

/// The same by people who are logged in already.
pub(super) async fn short_by(world: &World, people: &People) -> anyhow::Result<()> {
    let job = Job::start_by(world, people).await?;
    // the session before may have been killed in the middle of programming
    patiently("the engine does not return to its default session", job.return_to_default_session()).await?;
    job.read().await?;
    job.complete().await
}

fn credentials(account: &crate::cloud::Credentials) -> Credentials {
    Credentials { client_id: account.client_id.clone(), client_secret: account.client_secret.clone() }
}
