//! Looking for ECUs behind the gateways of a DoIP network: the shell around an [`EcuSearch`], for a network
//! that no session uses.

mod ecu_search;
mod gateway_scan;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};

pub(crate) use self::ecu_search::EcuSearch;
use super::outcome::{ScanObserver, ScanOutcome, ScanProgress};
use super::report::FoundEcu;
use super::request::ScanRequest;
use crate::config::DoipPort;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::discovery::{ANNOUNCE_WAIT, Question};
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::doip_network::network::NetworkError;
use crate::vehicle::hardware::Hardware;

/// The longest answer to TesterPresent, in bytes. The answer has two; a longer message than this ends the
/// connection.
const MAX_ANSWER: usize = 4096;
/// The time that a network has to get ready, with its address: claiming a link-local address takes up to 7 s
/// (RFC 3927, section 9).
const OPEN_TIME: Duration = Duration::from_secs(10);
/// The interval at which the ignition is read. The ignition counts after 50 ms; a scan should end soon after
/// that.
const IGNITION_EVERY: Duration = Duration::from_millis(100);

/// How a scan of a network ended, and the ECUs that it found until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DoipScanEnd {
    /// The reason why the scan ended; [`ScanOutcome::NotAcknowledged`] if there is no gateway.
    pub outcome: ScanOutcome,
    /// The ECUs, by gateway and address.
    pub ecus: Vec<FoundEcu>,
    /// The time that the scan took.
    pub elapsed: Duration,
}

/// Scans behind all gateways of a network.
///
/// # Errors
///
/// The network cannot be entered, or is lost.
pub(crate) async fn scan_network(
    hardware: &Hardware,
    port: &DoipPort,
    request: &ScanRequest,
    observer: &mut impl ScanObserver,
) -> Result<DoipScanEnd, NetworkError> {
    let link_error = |problem: String| NetworkError { device: port.device.to_string(), problem };
    let config = hardware.doip.network(hardware.doip.network_configuration);
    let opening = (hardware.open_doip)(port, &config, Purpose::Talk);
    let network = match tokio::time::timeout(OPEN_TIME, opening).await {
        Ok(opened) => opened?,
        Err(_) => return Err(link_error(format!("it is not ready after {} s", OPEN_TIME.as_secs()))),
    };
    let tester = LogicalAddress::new(config.tester_address);
    let settings = config.connection(tester, MAX_ANSWER, hardware.doip.confirmation_time);
    let mut explorer = Explorer::new(network);
    let started = now();
    explorer.ask_all(started, Question::Anybody);
    explorer.connect_if_silent(settings, config.tls, started + ANNOUNCE_WAIT);
    let mut search = EcuSearch::new(settings, config.tls, request, started);
    let mut deadline = Deadline::new(TimerKind::Runtime);
    let outcome = poll_fn(|cx| {
        loop {
            if observer.ignition() == Some(false) {
                return Poll::Ready(Ok(ScanOutcome::IgnitionOff));
            }
            if let Poll::Ready(outcome) = poll_search(&mut search, &mut explorer, cx) {
                return Poll::Ready(outcome.map_err(|error| link_error(error.to_string())));
            }
            let (done, total, found) = search.progress();
            observer.handle_progress(ScanProgress { done, total, found });
            deadline.set(Some(search.poll_timeout().min(now() + IGNITION_EVERY)));
            if deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await?;
    let found = search.into_found().into_iter();
    let ecus = found.map(|(gateway, ecu)| FoundEcu::Doip { gateway, ecu }).collect();
    Ok(DoipScanEnd { outcome, ecus, elapsed: now().saturating_duration_since(started) })
}

fn poll_search(
    search: &mut EcuSearch,
    explorer: &mut Explorer,
    cx: &mut Context<'_>,
) -> Poll<std::io::Result<ScanOutcome>> {
    while let Poll::Ready(event) = explorer.poll(cx) {
        tracing::debug!(event = ?event?, "DoIP");
    }
    search.poll(cx, explorer.network(), explorer.discovery()).map(|outcome| {
        let is_alone = explorer.discovery().gateways().is_empty();
        Ok(if is_alone { ScanOutcome::NotAcknowledged } else { outcome })
    })
}
