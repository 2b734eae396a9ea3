//! What customer and operator do, and whether it came out right.

use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::Switch;
use serde_json::json;
use tokio::time::Instant;

use super::limit;
use super::reading::{Reading, brief};
use super::stage::{BIT_RATE, Stage, VOLTS};
use super::story::{Story, Table};
use super::tp20;
use crate::operator::FlashProgress;
use crate::operator::client::{Connection, ConnectorWatch, Credentials, Customer, Operator, Ticket, Timing};
use crate::operator::flash::{Firmware, FlashReport, flash};
use crate::vehicle::catalogue::EcuRecord;
use crate::vehicle::ecu::{Ecu, EcuConfig};

/// Where the firmware goes in the ECU's memory.
const ADDRESS: u32 = 0x0800_0000;
/// How long coming online may take, over the worst network that can be asked for.
const ONLINE: Duration = Duration::from_secs(120);
/// How long the board's measurements may take to come: two of the connector's regular reports.
const BOARD: Duration = Duration::from_secs(11);

/// The demo so far.
#[derive(Default)]
pub(super) struct Demo {
    table: Table,
}

impl Demo {
    /// Plays everything; an error is what kept it from going on.
    pub(super) async fn play(&mut self, stage: &mut Stage, story: &Story) -> anyhow::Result<()> {
        let customer = self.log_in_customer(stage).await?;
        let watch = customer.watch_connector(stage.cloud.connector_id).await?;
        self.come_online(stage, story, watch).await?;
        let ticket = self.make_ticket(stage, story, &customer).await?;
        let operator = Operator::login(
            &stage.cloud.api_url,
            &stage.cloud.websocket_url,
            Some(&stage.cloud.ca_file),
            credentials(&stage.cloud.operator),
        )
        .await?;
        let joining = Instant::now();
        let ticket = operator.join(&ticket.id, "demo operator").await?;
        let number = ticket.ticket_number.clone().unwrap_or_else(|| ticket.id.clone());
        let uuid = ticket.connection().context("the ticket in progress has no connection")?;
        let connection = operator.connect(uuid).await?;
        story.tell(
            "operator",
            &format!("has joined ticket {number}, and is connected after {}", brief(joining.elapsed())),
        );
        let worked = if stage.tp20.is_empty() {
            self.work(stage, story, &connection).await
        } else {
            tp20::work(stage, story, &connection, &mut self.table).await
        };
        let counters = connection.counters();
        let pdus = counters.pdus_sent() + counters.pdus_received();
        let (sent, received) = (counters.pdus_sent(), counters.pdus_received());
        self.table.note("PDUs relayed", format!("{pdus} ({sent} to the vehicle, {received} back)"));
        let links = match (stage.network.statistics().cut, counters.interruptions()) {
            (0, _) => "none".to_owned(),
            (cut, survived) => format!("{cut}, {survived} of them in the diagnostic session, which went on"),
        };
        self.table.note("Links cut", links);
        worked?;
        operator.complete(&ticket.id).await?;
        story.tell("operator", &format!("has completed ticket {number}"));
        Ok(())
    }

    async fn log_in_customer(&mut self, stage: &Stage) -> anyhow::Result<Customer> {
        let credentials = credentials(&stage.cloud.customer);
        let (api, websocket) = (&stage.cloud.api_url, &stage.cloud.websocket_url);
        Ok(Customer::login(api, websocket, Some(&stage.cloud.ca_file), credentials).await?)
    }

    /// Waits for the connector, and for the VIN that it reports.
    async fn come_online(
        &mut self,
        stage: &mut Stage,
        story: &Story,
        mut watch: ConnectorWatch,
    ) -> anyhow::Result<()> {
        let started = stage.agent.started;
        let online = async {
            watch.until(|update| update.is_online).await?;
            let online = started.elapsed();
            story.tell("connector", &format!("is online, {} after its start", brief(online)));
            let expects_vin = stage.record.vin.is_some();
            let update = watch.until(|update| update.vin_number.is_some() == expects_vin).await?;
            let told = started.elapsed();
            // what the board measures is in the same message, or in one soon after
            let measured = watch.until(|update| update.voltage.is_some() && update.ignition.is_some());
            let board = tokio::time::timeout(BOARD, measured).await;
            Ok::<_, anyhow::Error>((online, board.unwrap_or(Ok(update))?, told))
        };
        let (online, update, told) = tokio::select! {
            online = tokio::time::timeout(ONLINE, online) => {
                online.with_context(|| format!("the connector is not online with its VIN after {} s", ONLINE.as_secs()))??
            }
            ended = stage.agent.ended() => anyhow::bail!("the agent has ended by itself: {}", ended?),
        };
        let vin = update.vin_number.clone().unwrap_or_else(|| "no VIN".to_owned());
        let ignition = match update.ignition {
            Some(true) => "ignition on",
            Some(false) => "ignition off",
            None => "ignition unknown",
        };
        let volts = update.voltage.unwrap_or_default();
        story.tell(
            "connector",
            &format!("reports {vin}, {volts:.1} V, {ignition}, {} after its start", brief(told)),
        );
        self.table.note("Start to online", brief(online));
        self.table.note("Start to VIN", format!("{} until the cloud had it", brief(told)));
        let right = (volts - VOLTS).abs() < 0.05 && update.ignition == Some(true);
        self.table.check("Board", format!("{volts:.1} V, {ignition}"), right);
        Ok(())
    }

    async fn make_ticket(
        &mut self,
        stage: &Stage,
        story: &Story,
        customer: &Customer,
    ) -> anyhow::Result<Ticket> {
        let vin = stage.record.vin.map(|vin| vin.as_str().to_owned());
        let vehicle = match &vin {
            Some(vin) => customer.find_vehicle(vin).await?,
            None => json!({}),
        };
        let id = |part: &str| vehicle.pointer(part).cloned().unwrap_or_default();
        let ticket = customer
            .create_ticket(&json!({
                "vin": vin,
                "vehicle_model_id": id("/model/id"),
                "vehicle_model_variant_id": id("/model_variant/id"),
                "connector_id": stage.cloud.connector_id,
                "product_ids": [1],
                "metadata": {"vin_is_found_by_reader": vin.is_some()},
                "reference": "demo",
            }))
            .await?;
        let model = id("/model_variant/name");
        let model = model.as_str().unwrap_or("a vehicle without VIN").to_owned();
        story.tell("customer", &format!("asks for help with {model}: ticket {} is pending", ticket.id));
        Ok(ticket)
    }

    /// All that the operator does with the vehicle.
    async fn work(
        &mut self,
        stage: &mut Stage,
        story: &Story,
        connection: &Connection,
    ) -> anyhow::Result<()> {
        let (bus, what) = stage.plugged.bus()?;
        let configuring = Instant::now();
        connection.configure_buses(vec![bus]).await?;
        story.tell("operator", &format!("has set up {what} in {}", brief(configuring.elapsed())));
        self.identify(stage, story, connection).await?;
        self.read_all(stage, story, connection).await?;
        let place = target(&stage.record.ecus).context("the vehicle has no ECU that could be flashed")?;
        self.flash(stage, story, connection, place).await
    }

    async fn identify(
        &mut self,
        stage: &Stage,
        story: &Story,
        connection: &Connection,
    ) -> anyhow::Result<()> {
        let asked = Instant::now();
        let vehicle = connection.identify_vehicle().await?;
        let expected = stage.record.vin.map(|vin| vin.as_str().to_owned());
        let right = vehicle.vin_number == expected;
        let vin = vehicle.vin_number.unwrap_or_else(|| "no VIN".to_owned());
        let source = vehicle.source.map(|source| format!(" by {source}")).unwrap_or_default();
        let took = vehicle.elapsed_ms.unwrap_or_default();
        let here = brief(asked.elapsed());
        story.tell(
            "operator",
            &format!("asks for the VIN: {vin}, read{source} in {took} ms, here after {here}"),
        );
        self.table.check("VIN", format!("{vin}, read{source} in {took} ms"), right);
        Ok(())
    }

    /// Asks every ECU all that the real one was asked, and for its trouble codes: all ECUs at the same time.
    async fn read_all(
        &mut self,
        stage: &Stage,
        story: &Story,
        connection: &Connection,
    ) -> anyhow::Result<()> {
        let nodes = stage.record.nodes();
        let readings = nodes
            .iter()
            .enumerate()
            .map(|(place, ecu)| Reading::take(connection, &stage.plugged, place, ecu));
        let readings = futures_util::future::try_join_all(readings).await?;
        let (mut right, mut asked, mut codes_right, mut codes) = (0, 0, 0, 0);
        for (ecu, reading) in nodes.iter().zip(readings) {
            for line in &reading.lines {
                story.tell("operator", line);
            }
            right += reading.right;
            asked += ecu.exchanges.len();
            codes += reading.codes.len();
            let has = Ecu::new(EcuConfig::new(&stage.record.platform, ecu));
            let pairs = reading.codes.iter().zip(has.dtcs());
            let same = pairs.clone().all(|(is, has)| is.code == has.code && is.status == has.status);
            codes_right += usize::from(same && reading.codes.len() == has.dtcs().len());
        }
        let what = format!("{right} of {asked} answers are those of the real vehicle");
        self.table.check("ECUs read", what, right == asked && asked > 0);
        let what = format!("{codes} in {} ECUs", nodes.len());
        self.table.check("Trouble codes", what, codes_right == nodes.len());
        Ok(())
    }

    async fn flash(
        &mut self,
        stage: &mut Stage,
        story: &Story,
        connection: &Connection,
        place: usize,
    ) -> anyhow::Result<()> {
        let data = stage.firmware.clone();
        let target = stage.record.ecus.get(place).context("the ECU to flash")?.clone();
        let name = stage.plugged.name(place, &target);
        story.tell("operator", &format!("flashes {} ({name}) with {} bytes", target.name, data.len()));
        let channel = stage.plugged.open(connection, place, &target, Switch::Enabled).await?;
        let mut progress =
            FlashProgress::new(data.len(), |line| story.tell("operator", &format!("  {line}")));
        let firmware = Firmware { address: ADDRESS, data: &data };
        let timing = Timing::default();
        let mut show = |step| progress.handle(step);
        let flashed = tokio::select! {
            flashed = flash(&channel, firmware, &timing, &mut show) => flashed,
            ended = stage.agent.ended() => anyhow::bail!("the agent has ended by itself: {}", ended?),
        };
        progress.end();
        drop(progress);
        self.judge_flash(stage, story, (place, &target), flashed.as_ref().ok());
        Ok(flashed.map(drop).map_err(crate::operator::Failure::from)?)
    }

    /// Looks into the ECU's memory, which no operator of a real one could.
    fn judge_flash(
        &mut self,
        stage: &Stage,
        story: &Story,
        (place, target): (usize, &EcuRecord),
        report: Option<&FlashReport>,
    ) {
        if let Some(report) = report {
            let took = report.transferring.as_secs_f64().max(0.001);
            let rate = report.bytes as f64 / took;
            story.tell(
                "operator",
                &format!(
                    "has flashed it in {}: erasing {}, transferring {}",
                    brief(report.total),
                    brief(report.erasing),
                    brief(report.transferring)
                ),
            );
            let what =
                format!("{} bytes in {} blocks, {}", report.bytes, report.blocks, brief(report.transferring));
            self.table.note("Flashed", what);
            let mut what = format!("{rate:.0} bytes/s");
            if stage.plugged.is_classic_can() {
                let least =
                    limit::transfer_time(&target.address, BIT_RATE, &stage.firmware, report.block_length);
                let possible = report.bytes as f64 / least.as_secs_f64().max(0.001);
                let percent = 100.0 * least.as_secs_f64() / took;
                what = format!("{what}, {percent:.1} % of the bus's limit of {possible:.0}");
            }
            self.table.note("Flash rate", what);
        }
        let memory = stage.plugged.memory(place, target);
        let same = memory
            .last()
            .is_some_and(|image| image.address == u64::from(ADDRESS) && image.data == stage.firmware);
        let what = if same { "holds the firmware, byte for byte" } else { "does not hold the firmware" };
        self.table.check("ECU's memory", what, same);
    }

    /// Ends everything, and looks at what is left.
    pub(super) async fn take_down(
        &mut self,
        mut stage: Stage,
        story: &Story,
        failure: Option<&anyhow::Error>,
    ) {
        if let Some(failure) = failure {
            story.tell("demo", &format!("{failure:#}"));
        }
        self.table.check(
            "Demo",
            if failure.is_none() { "went through" } else { "broke off" },
            failure.is_none(),
        );
        let anomalies = stage.plugged.anomalies();
        for strange in &anomalies {
            story.tell("vehicle", strange);
        }
        let what = if anomalies.is_empty() { "nothing lost, doubled or out of order" } else { "see above" };
        self.table.check("As the ECUs saw it", what, anomalies.is_empty());

        let memory = stage.agent.memory();
        let ended = stage.agent.end().await;
        let megabytes =
            memory.map(|bytes| format!(", {:.1} MB of its own", bytes as f64 / 1e6)).unwrap_or_default();
        let (what, right) = match &ended {
            Some((status, took)) => {
                (format!("ended by SIGTERM in {}: {status}", brief(*took)), status.success())
            }
            None => ("had to be killed".to_owned(), false),
        };
        story.tell("connector", &format!("the agent {what}"));
        self.table.check("Agent", format!("{what}{megabytes}"), right);
        let left = stage.plugged.left_in_session();
        let what = if left.is_empty() { "all in their default session".to_owned() } else { left.join(", ") };
        self.table.check("ECUs afterwards", what, left.is_empty());
        if (failure.is_some() || !right)
            && let Some(log) = stage.agent.log_tail()
        {
            println!("\nThe end of the agent's log:\n{log}");
        }
        stage.cloud.shutdown().await;
        stage.plugged.stop().await;
        drop(stage.network);
        if let Err(error) = stage.directory.close() {
            tracing::warn!(%error, "the temporary directory was not removed");
        }
    }

    /// Prints what came out; whether all was right.
    pub(super) fn print_table(&self) -> bool {
        self.table.print()
    }
}

fn credentials(account: &crate::cloud::Credentials) -> Credentials {
    Credentials { client_id: account.client_id.clone(), client_secret: account.client_secret.clone() }
}

/// The place of the ECU to flash: the engine's, best where tools expect it; else the first that there is.
fn target(ecus: &[EcuRecord]) -> Option<usize> {
    let engine = |ecu: &EcuRecord| ecu.name == "engine";
    ecus.iter()
        .position(|ecu| engine(ecu) && ecu.address.request.raw() == 0x7E0)
        .or_else(|| ecus.iter().position(engine))
        .or((!ecus.is_empty()).then_some(0))
}
