//! The VIN by DoIP: the VIN that a gateway announces, or else the VIN that it answers to `22 F190`.

mod gateway;
mod question;
mod search;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};

pub(crate) use self::search::VinSearch;
use super::report::Candidate;
use crate::config::doip::NetworkConfig;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::ConnectionSettings;
use crate::protocol::doip::discovery::{ANNOUNCE_WAIT, Question};
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::network::{Network, NetworkError};

/// The longest message that is expected, in bytes. An answer with the VIN has 20; a longer message than this
/// ends the connection.
const MAX_ANSWER: usize = 4096;

/// A network that is being opened.
pub(crate) type OpeningNetwork = BoxFuture<'static, Result<Box<dyn Network>, NetworkError>>;

/// The result of reading the VIN on one network.
pub struct DoipReading {
    /// The VINs, in the order in which they came.
    pub candidates: Vec<Candidate>,
    /// The reason for people why there is no VIN; empty if there is one.
    pub why_not: String,
    /// The network, if it was not ready in time and is still being opened.
    pub late: Option<OpeningNetwork>,
}

impl DoipReading {
    fn failed(why_not: String) -> Self {
        Self { candidates: Vec::new(), why_not, late: None }
    }
}

/// Opens a network and reads the VIN on it, both within this budget.
pub(crate) async fn open_and_read(
    mut opening: OpeningNetwork,
    config: NetworkConfig,
    budget: Duration,
) -> DoipReading {
    let until = now() + budget;
    let network = match tokio::time::timeout(budget, &mut opening).await {
        Ok(Ok(network)) => network,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot read the VIN by DoIP");
            return DoipReading::failed(error.problem);
        }
        Err(_) => {
            let why = format!("the network did not get its address within {} s", budget.as_secs_f32());
            return DoipReading { late: Some(opening), ..DoipReading::failed(why) };
        }
    };
    let settings = config.connection(LogicalAddress::new(config.tester_address), MAX_ANSWER, budget);
    read(network, settings, config.tls, until.saturating_duration_since(now())).await
}

/// Reads the VIN on a network within this budget.
pub(crate) async fn read(
    network: Box<dyn Network>,
    settings: ConnectionSettings,
    tls: bool,
    budget: Duration,
) -> DoipReading {
    let mut explorer = Explorer::new(network);
    explorer.ask_all(now(), Question::Anybody);
    let mut search = VinSearch::new(settings, tls, now() + budget);
    if let Some(host) = explorer.named_host() {
        // where there is little time, most of it is for the connection
        search = search.with_silent_host(host, now() + ANNOUNCE_WAIT.min(budget / 3));
    }
    let mut deadline = Deadline::new(TimerKind::Runtime);
    loop {
        let until = search.poll_timeout();
        deadline.set(Some(until));
        let step = std::future::poll_fn(|cx| {
            if let Poll::Ready(step) = poll_step(cx, &mut explorer, &mut search, until) {
                return Poll::Ready(step);
            }
            // the search ends in the next step, if its time is up
            deadline.poll_expired(cx).map(|()| Ok(false))
        });
        let is_over = match step.await {
            Ok(is_done) => is_done,
            Err(error) => {
                tracing::debug!(%error, "lost the DoIP network");
                let why_not = format!("the network is lost: {error}");
                return DoipReading { candidates: search.into_candidates(), why_not, late: None };
            }
        };
        if is_over {
            let why_not = why_not(&search, &explorer);
            return DoipReading { candidates: search.into_candidates(), why_not, late: None };
        }
    }
}

/// Advances discovery and search. Ready with `true` once the search is done, and with `false` when the
/// search's deadline is no longer `until`.
fn poll_step(
    cx: &mut Context<'_>,
    explorer: &mut Explorer,
    search: &mut VinSearch,
    until: Instant,
) -> Poll<std::io::Result<bool>> {
    poll_explorer(cx, explorer, search)?;
    let is_done = search.poll(cx, explorer.network(), explorer.discovery()).is_ready();
    if is_done || search.poll_timeout() != until { Poll::Ready(Ok(is_done)) } else { Poll::Pending }
}

/// Receives and sends datagrams. While no gateway is known, the question to all gateways is repeated: a
/// datagram may be lost, and a gateway or an address of the connector may come later.
fn poll_explorer(
    cx: &mut Context<'_>,
    explorer: &mut Explorer,
    search: &mut VinSearch,
) -> std::io::Result<()> {
    loop {
        while let Poll::Ready(event) = explorer.poll(cx) {
            let event = event?;
            tracing::debug!(?event, "DoIP");
            event.refusal().into_iter().for_each(|refusal| search.handle_refusal(refusal));
        }
        let discovery = explorer.discovery();
        if !(discovery.gateways().is_empty() && discovery.is_done_asking() && explorer.can_ask()) {
            return Ok(());
        }
        explorer.ask_all(now(), Question::Anybody);
    }
}

/// The reason why there is no VIN; empty if there is one.
fn why_not(search: &VinSearch, explorer: &Explorer) -> String {
    if search.has_vin() {
        return String::new();
    }
    let reasons = search.reasons();
    if !reasons.is_empty() {
        return reasons.join("; ");
    }
    match explorer.send_error() {
        Some(error) => format!("no gateway announced itself, and none could be asked: {error}"),
        None => "no gateway announced itself or answered".to_owned(),
    }
}
