//! The demo on CAN and DoIP: the steps of the customer and the operator, and the checks of their results.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::Switch;
use tokio::time::Instant;

use super::agent_setup::remove;
use super::bus_limit;
use super::demo_vehicle::BIT_RATE;
use super::duration::brief;
use super::flashing::flash_with_progress;
use super::portal;
use super::reading::Reading;
use super::stage::{Stage, VOLTS};
use super::story::{ResultTable, Story};
use super::tp20;
use crate::scenario::{connect, create_ticket, holds_firmware, log_in_customer, log_in_operator};
use crate::vehicle::catalogue::EcuRecord;
use crate::vehicle::ecu::{Ecu, EcuConfig};
use connector_operator::client::{Connection, ConnectorWatch, Customer, Ticket};
use connector_operator::flash::FlashReport;

/// Limit for coming online, over the worst network that the arguments allow.
const ONLINE: Duration = Duration::from_secs(120);
/// Limit for the board's measurements: two of the connector's regular reports.
const BOARD: Duration = Duration::from_secs(11);

/// The results of the demo so far.
#[derive(Default)]
pub(super) struct Demo {
    table: ResultTable,
}

impl Demo {
    /// Plays the whole session. Returns the error that stopped it.
    pub(super) async fn play(
        &mut self,
        stage: &mut Stage,
        story: &Story,
        python: Option<&Path>,
    ) -> anyhow::Result<()> {
        let customer = log_in_customer(&stage.setup.cloud).await?;
        let watch = customer.watch_connector(stage.setup.cloud.connector_id).await?;
        self.come_online(stage, story, watch).await?;
        let ticket = self.make_ticket(stage, story, &customer).await?;
        let operator = log_in_operator(&stage.setup.cloud).await?;
        let joining = Instant::now();
        let (ticket, connection) = connect(&operator, &ticket.id, "demo operator").await?;
        let number = ticket.ticket_number.clone().unwrap_or_else(|| ticket.id.clone());
        story.report(
            "operator",
            &format!("joined ticket {number} and connected in {}", brief(joining.elapsed())),
        );
        let worked = if stage.tp20.is_empty() {
            self.work(stage, story, &connection).await
        } else {
            tp20::work(stage, story, &connection, &mut self.table).await
        };
        self.note_relay(stage, &connection);
        worked?;
        operator.complete(&ticket.id).await?;
        story.report("operator", &format!("completed ticket {number}"));
        match python {
            Some(python) => portal::play(python, &stage.setup.cloud, story, &mut self.table).await,
            None => Ok(()),
        }
    }

    /// Notes the relay's work: PDUs, and links cut.
    fn note_relay(&mut self, stage: &Stage, connection: &Connection) {
        let counters = connection.counters();
        let pdus = counters.pdus_sent() + counters.pdus_received();
        let (sent, received) = (counters.pdus_sent(), counters.pdus_received());
        self.table.note("PDUs relayed", format!("{pdus} ({sent} to the vehicle, {received} back)"));
        let links = match (stage.setup.network.statistics().cut, counters.interruptions()) {
            (0, _) => "none".to_owned(),
            (cut, survived) => {
                format!("{cut}, {survived} of them during the diagnostic session, which continued")
            }
        };
        self.table.note("Links cut", links);
    }

    /// Waits until the connector is online and has reported its VIN.
    async fn come_online(
        &mut self,
        stage: &mut Stage,
        story: &Story,
        mut watch: ConnectorWatch,
    ) -> anyhow::Result<()> {
        let started = stage.setup.agent.started;
        let online = async {
            watch.until(|update| update.is_online).await?;
            let online = started.elapsed();
            story.report("connector", &format!("is online {} after its start", brief(online)));
            let expects_vin = stage.record.vin.is_some();
            let update = watch.until(|update| update.vin_number.is_some() == expects_vin).await?;
            let reported = started.elapsed();
            // the board's measurements are in the same message, or in one soon after
            let measured = watch.until(|update| update.voltage.is_some() && update.ignition.is_some());
            let board = tokio::time::timeout(BOARD, measured).await;
            Ok::<_, anyhow::Error>((online, board.unwrap_or(Ok(update))?, reported))
        };
        let (online, update, reported) = tokio::select! {
            online = tokio::time::timeout(ONLINE, online) => {
                online.with_context(|| format!("the connector is not online with its VIN after {} s", ONLINE.as_secs()))??
            }
            ended = stage.setup.agent.ended() => anyhow::bail!("the agent exited: {}", ended?),
        };
        let vin = update.vin_number.clone().unwrap_or_else(|| "no VIN".to_owned());
        let ignition = match update.ignition {
            Some(true) => "ignition on",
            Some(false) => "ignition off",
            None => "ignition unknown",
        };
        let volts = update.voltage.unwrap_or_default();
        story.report(
            "connector",
            &format!("reports {vin}, {volts:.1} V, {ignition}, {} after its start", brief(reported)),
        );
        self.table.note("Start to online", brief(online));
        self.table.note("Start to VIN", format!("{} until the cloud received it", brief(reported)));
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
        let vin = stage.record.vin;
        let vin = vin.as_ref().map(|vin| vin.as_str());
        let cloud = &stage.setup.cloud;
        let (ticket, model) = create_ticket(customer, cloud, vin, vin.is_some(), "demo").await?;
        let model = model.unwrap_or_else(|| "a vehicle without VIN".to_owned());
        story.report("customer", &format!("asks for help with {model}: ticket {} is pending", ticket.id));
        Ok(ticket)
    }

    /// Everything that the operator does with the vehicle.
    async fn work(
        &mut self,
        stage: &mut Stage,
        story: &Story,
        connection: &Connection,
    ) -> anyhow::Result<()> {
        let (bus, description) = stage.vehicle.bus()?;
        let configuring = Instant::now();
        connection.configure_buses(vec![bus]).await?;
        story.report("operator", &format!("set up {description} in {}", brief(configuring.elapsed())));
        self.identify(stage, story, connection).await?;
        self.read_all(stage, story, connection).await?;
        let place = target(&stage.record.ecus).context("the vehicle has no ECU to flash")?;
        if let Some(driving) = stage.driving.take() {
            driving.play(stage, story, connection, place, &mut self.table).await?;
        }
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
        let received = brief(asked.elapsed());
        story.report(
            "operator",
            &format!("asks for the VIN: {vin}, read{source} in {took} ms, received after {received}"),
        );
        self.table.check("VIN", format!("{vin}, read{source} in {took} ms"), right);
        Ok(())
    }

    /// Asks all ECUs simultaneously: every recorded request, and the trouble codes.
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
            .map(|(place, ecu)| Reading::read(connection, &stage.vehicle, place, ecu));
        let readings = futures_util::future::try_join_all(readings).await?;
        let (mut right, mut asked, mut codes_right, mut codes) = (0, 0, 0, 0);
        for (ecu, reading) in nodes.iter().zip(readings) {
            for line in &reading.lines {
                story.report("operator", line);
            }
            right += reading.right;
            asked += ecu.exchanges.len();
            codes += reading.codes.len();
            let has = Ecu::new(EcuConfig::new(&stage.record.platform, ecu));
            let pairs = reading.codes.iter().zip(has.dtcs());
            let same = pairs.clone().all(|(is, has)| is.code == has.code && is.status == has.status);
            codes_right += usize::from(same && reading.codes.len() == has.dtcs().len());
        }
        let result = format!("{right} of {asked} answers match the real vehicle's");
        self.table.check("ECUs read", result, right == asked && asked > 0);
        let result = format!("{codes} in {} ECUs", nodes.len());
        self.table.check("Trouble codes", result, codes_right == nodes.len());
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
        let name = stage.vehicle.name(place, &target);
        story.report("operator", &format!("flashes {} ({name}) with {} bytes", target.name, data.len()));
        let channel = stage.vehicle.open(connection, place, &target, Switch::Enabled).await?;
        let flashed = flash_with_progress(&mut stage.setup.agent, story, &channel, &data).await;
        self.judge_flash(stage, story, (place, &target), flashed.as_ref().ok());
        flashed.map(drop)
    }

    /// Compares the ECU's memory with the firmware. Only the simulation offers this: a real ECU's memory
    /// cannot be read.
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
            story.report(
                "operator",
                &format!(
                    "flashed it in {}: erasing {}, transferring {}",
                    brief(report.total),
                    brief(report.erasing),
                    brief(report.transferring)
                ),
            );
            let result =
                format!("{} bytes in {} blocks, {}", report.bytes, report.blocks, brief(report.transferring));
            self.table.note("Flashed", result);
            let mut result = format!("{rate:.0} bytes/s");
            if stage.vehicle.is_classic_can() {
                let least =
                    bus_limit::transfer_time(&target.address, BIT_RATE, &stage.firmware, report.block_length);
                let possible = report.bytes as f64 / least.as_secs_f64().max(0.001);
                let percent = 100.0 * least.as_secs_f64() / took;
                result = format!("{result}, {percent:.1} % of the bus's limit of {possible:.0}");
            }
            self.table.note("Flash rate", result);
        }
        let memory = stage.vehicle.memory(place, target);
        let same = holds_firmware(&memory, &stage.firmware);
        let result = if same { "holds the firmware, byte for byte" } else { "does not hold the firmware" };
        self.table.check("ECU's memory", result, same);
    }

    /// Stops everything, and checks the state that is left.
    pub(super) async fn take_down(
        &mut self,
        mut stage: Stage,
        story: &Story,
        failure: Option<&anyhow::Error>,
    ) {
        if let Some(failure) = failure {
            story.report("demo", &format!("{failure:#}"));
        }
        self.table.check(
            "Demo",
            if failure.is_none() { "completed" } else { "broke off" },
            failure.is_none(),
        );
        let anomalies = stage.vehicle.anomalies();
        for strange in &anomalies {
            story.report("vehicle", strange);
        }
        let result =
            if anomalies.is_empty() { "nothing lost, duplicated or out of order" } else { "see above" };
        self.table.check("As the ECUs saw it", result, anomalies.is_empty());

        stage.setup.end_agent(story, &mut self.table, failure.is_some()).await;
        let left = stage.vehicle.left_in_session();
        let result =
            if left.is_empty() { "all in their default session".to_owned() } else { left.join(", ") };
        self.table.check("ECUs afterwards", result, left.is_empty());
        stage.setup.cloud.shutdown().await;
        stage.vehicle.stop().await;
        drop(stage.setup.network);
        remove(stage.directory);
    }

    /// Prints the results. Returns whether every check was right.
    pub(super) fn print_table(&self) -> bool {
        self.table.print()
    }
}

/// The index of the ECU to flash: the engine, if possible at 0x7E0, where tools expect it; otherwise the
/// first ECU.
fn target(ecus: &[EcuRecord]) -> Option<usize> {
    let engine = |ecu: &EcuRecord| ecu.name == "engine";
    ecus.iter()
        .position(|ecu| engine(ecu) && ecu.address.request.raw() == 0x7E0)
        .or_else(|| ecus.iter().position(engine))
        .or((!ecus.is_empty()).then_some(0))
}
