//! The VIN of a vehicle: from all CAN buses and DoIP networks at the same time, and otherwise from the
//! K-lines.

use std::future::Future;
use std::time::{Duration, Instant};

use connector_hal::can::CanBus;
use connector_hal::clock::{now, sleep_until};
use connector_hal::future::BoxFuture;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::can::{BusReading, BusResult, LATENCY_ALLOWANCE, read_bus};
use super::doip::{DoipReading, open_and_read};
use super::kline::{self, LineReading, LineToAsk};
use super::report::{Candidate, VinReport};
use crate::config::{DoipPort, VinSettings};
use crate::protocol::uds::P2;
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::hardware::Hardware;

/// The result of [`read_vehicle`].
pub(crate) struct VehicleReading {
    /// The VIN, or that there is none.
    pub report: VinReport,
    /// The CAN buses, in the order in which they were given.
    pub buses: Vec<BusReading>,
    /// The DoIP networks, in the order of their ports; without those that another VIN made superfluous.
    pub networks: Vec<DoipReading>,
    /// The K-lines that were asked.
    pub lines: Vec<LineReading>,
}

/// The result of [`read`] and [`read_can_and_doip`].
pub struct ParallelReading {
    /// The VIN, or that there is none.
    pub report: VinReport,
    /// The CAN buses, in the order in which they were given.
    pub buses: Vec<BusReading>,
    /// The DoIP networks, in the order in which they were given; without those that another VIN made
    /// superfluous.
    pub networks: Vec<DoipReading>,
}

/// Reading the VIN from one DoIP network. The future ends within its budget.
pub(crate) type NetworkToRead = BoxFuture<'static, DoipReading>;

/// Reads the VIN from these CAN buses and the hardware's DoIP networks at the same time, within
/// [`VinSettings::budget`]. If none delivers a VIN, opens the K-lines and asks them, within
/// [`VinSettings::kline_budget`] each.
pub(crate) async fn read_vehicle(
    hardware: &Hardware,
    buses: Vec<Box<dyn CanBus>>,
    lines: impl Future<Output = Vec<LineToAsk>>,
    settings: &VinSettings,
) -> VehicleReading {
    let networks = networks_to_read(hardware, settings.budget);
    let ParallelReading { mut report, buses, networks } = read_can_and_doip(buses, networks, settings).await;
    let mut line_readings = Vec::new();
    if report.vin.is_none()
        && let Some((read, readings)) =
            kline::read(lines.await, settings.kline_budget, report.elapsed, hardware.timer).await
    {
        (report, line_readings) = (read, readings);
    }
    VehicleReading { report, buses, networks, lines: line_readings }
}

/// Reads the VIN from the vehicle that these buses belong to, within [`VinSettings::budget`].
///
/// The first bus that delivers a VIN decides; the others get one P2 to agree or disagree. Dropping the future
/// ends the reading and closes the adapters.
pub async fn read(buses: Vec<Box<dyn CanBus>>, settings: &VinSettings) -> ParallelReading {
    read_can_and_doip(buses, Vec::new(), settings).await
}

/// Reading the VIN on all DoIP networks of the hardware, each within this budget.
pub fn networks_to_read(hardware: &Hardware, budget: Duration) -> Vec<NetworkToRead> {
    let network = hardware.doip.network(hardware.doip.network_configuration);
    let reading = |port: &DoipPort| {
        let opening = (hardware.open_doip)(port, &network, Purpose::Talk);
        Box::pin(open_and_read(opening, network.clone(), budget)) as NetworkToRead
    };
    hardware.doip_ports.iter().map(reading).collect()
}

/// Reads the VIN from these CAN buses and DoIP networks at the same time, as [`read`] does from CAN buses
/// alone.
pub async fn read_can_and_doip(
    buses: Vec<Box<dyn CanBus>>,
    networks: Vec<NetworkToRead>,
    settings: &VinSettings,
) -> ParallelReading {
    let since = now();
    let stop = CancellationToken::new();
    let tasks = buses.into_iter().enumerate().map(|(index, bus)| {
        let stop = stop.clone();
        async move { (index, read_bus(bus, settings, &stop).await) }
    });
    let mut running: FuturesUnordered<_> = tasks.collect();
    let networks = networks.into_iter().enumerate();
    let mut reading: FuturesUnordered<_> =
        networks.map(|(index, network)| async move { (index, network.await) }).collect();
    let mut results = Results { since, buses: Vec::new(), networks: Vec::new() };
    let mut stop_at: Option<Instant> = None;
    while !(running.is_empty() && reading.is_empty()) {
        let has_vin = tokio::select! {
            biased;
            Some((index, bus)) = running.next() => {
                let has_vin = !bus.candidates.is_empty();
                results.buses.push((index, bus));
                has_vin
            }
            Some((index, network)) = reading.next() => {
                let has_vin = !network.candidates.is_empty();
                results.networks.push((now(), index, network));
                has_vin
            }
            () = sleep_until(stop_at) => {
                stop.cancel();
                reading.clear();
                stop_at = None;
                false
            }
        };
        if has_vin && stop_at.is_none() {
            stop_at = Some(now() + P2 + LATENCY_ALLOWANCE);
        }
    }
    results.into_reading()
}

/// The results of buses and networks, in the order in which they came, each with its place.
struct Results {
    since: Instant,
    buses: Vec<(usize, BusResult)>,
    /// With the time when each one ended.
    networks: Vec<(Instant, usize, DoipReading)>,
}

impl Results {
    fn into_reading(mut self) -> ParallelReading {
        let report = VinReport::from_buses(&self.candidates(), self.elapsed());
        self.buses.sort_by_key(|(index, _)| *index);
        self.networks.sort_by_key(|(_, index, _)| *index);
        ParallelReading {
            report,
            buses: self.buses.into_iter().map(|(_, bus)| bus.reading).collect(),
            networks: self.networks.into_iter().map(|(.., network)| network).collect(),
        }
    }

    /// From when the first adapter was ready to when the last bus or network ended.
    fn elapsed(&self) -> Duration {
        let networks_since = (!self.networks.is_empty()).then_some(self.since);
        let bus_starts = self.buses.iter().filter_map(|(_, bus)| bus.started_at);
        let bus_ends = self.buses.iter().map(|(_, bus)| bus.ended_at);
        let started_at = bus_starts.chain(networks_since).min();
        let ended_at = bus_ends.chain(self.networks.iter().map(|(at, ..)| *at)).max();
        let elapsed = started_at.zip(ended_at).map(|(start, end)| end.saturating_duration_since(start));
        elapsed.unwrap_or_default()
    }

    /// The VINs of each bus and network, the first to deliver one in front.
    fn candidates(&self) -> Vec<Vec<Candidate>> {
        let mut buses: Vec<_> = self.buses.iter().map(|(index, bus)| (bus.found_at, *index, bus)).collect();
        buses.sort_by_key(|(found_at, index, _)| (found_at.is_none(), *found_at, *index));
        let mut by_time: Vec<(Option<Instant>, &Vec<Candidate>)> =
            buses.into_iter().map(|(found_at, _, bus)| (found_at, &bus.candidates)).collect();
        by_time.extend(self.networks.iter().map(|(at, _, network)| (Some(*at), &network.candidates)));
        by_time.sort_by_key(|(at, candidates)| (candidates.is_empty(), at.is_none(), *at));
        by_time.into_iter().map(|(_, candidates)| candidates.clone()).collect()
    }
}
