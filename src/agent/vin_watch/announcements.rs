//! Listens to the announcements of DoIP gateways while nothing is asked: another VIN is a reason to read the
//! VIN.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};

use crate::config::DoipPort;
use crate::protocol::doip::discovery::DiscoveryEvent;
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::doip_network::network::NetworkError;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::reopened::{OpeningDevice, Reopened};

/// The pause before a network is opened again on which the agent could not listen. As long as the least pause
/// between two readings: an announcement that is noticed earlier would have to wait anyway.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The networks behind all DoIP pins. The agent only listens on them.
pub(super) struct Announcements {
    hardware: Hardware,
    networks: Vec<Reopened<Explorer, NetworkError>>,
    deadline: Deadline,
    /// The VIN that is already known.
    known: Option<Vin>,
}

impl Announcements {
    pub(super) fn new(hardware: &Hardware, known: Option<Vin>) -> Self {
        let network = |port| Reopened::new(open(hardware, port)).with_pause(RETRY_AFTER);
        Self {
            hardware: hardware.clone(),
            networks: hardware.doip_ports.iter().map(network).collect(),
            deadline: Deadline::new(TimerKind::Runtime),
            known,
        }
    }

    /// Stops listening.
    pub(super) fn clear(&mut self) {
        self.networks.clear();
    }

    /// Whether a gateway announced another VIN than the known one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_news = false;
        loop {
            for (network, port) in self.networks.iter_mut().zip(self.hardware.doip_ports.iter()) {
                let now = now();
                while let Poll::Ready(opened) = network.poll(cx, now, || open(&self.hardware, port)) {
                    if let Err(error) = opened {
                        tracing::debug!(%error, "cannot listen to announcements");
                    }
                }
                is_news |= poll_network(network, cx, now, self.known);
            }
            self.deadline.set(self.networks.iter().filter_map(Reopened::retry_at).min());
            if self.deadline.poll_expired(cx).is_pending() {
                return is_news;
            }
        }
    }
}

/// Reads the announcements of an open network.
fn poll_network(
    network: &mut Reopened<Explorer, NetworkError>,
    cx: &mut Context<'_>,
    now: Instant,
    known: Option<Vin>,
) -> bool {
    let mut is_news = false;
    while let Some(explorer) = network.get_mut() {
        match explorer.poll(cx) {
            Poll::Ready(Ok(DiscoveryEvent::Found(gateway) | DiscoveryEvent::Changed(gateway))) => {
                let vin = gateway.announcement.vin().ok();
                is_news |= vin.is_some() && vin != known;
            }
            Poll::Ready(Ok(
                DiscoveryEvent::Refused { .. }
                | DiscoveryEvent::Foreign { .. }
                | DiscoveryEvent::Unreadable { .. },
            )) => {}
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "can no longer listen to announcements");
                network.lose(now);
            }
            Poll::Pending => break,
        }
    }
    is_news
}

fn open(hardware: &Hardware, port: &DoipPort) -> OpeningDevice<Explorer, NetworkError> {
    let network = hardware.doip.network(hardware.doip.network_configuration);
    let opening = (hardware.open_doip)(port, &network, Purpose::Listen);
    Box::pin(async move { Ok(Explorer::new(opening.await?)) })
}
