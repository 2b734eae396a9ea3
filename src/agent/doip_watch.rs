//! Hears gateways announce themselves while nothing is asked: another VIN is a reason to read it.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};

use crate::protocol::doip::discovery::DiscoveryEvent;
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::doip_network::network::{LinkError, Network};
use crate::vehicle::hardware::Hardware;

/// How long to wait before a network that could not be listened on is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

enum State {
    Opening(BoxFuture<'static, Result<Box<dyn Network>, LinkError>>),
    Listening(Box<Explorer>),
    Lost(Instant, Deadline),
}

/// The networks behind all DoIP pins, only listened on.
pub(super) struct DoipWatch {
    hardware: Hardware,
    states: Vec<State>,
    /// The VIN that is known already.
    known: Option<Vin>,
}

impl DoipWatch {
    pub(super) fn new(hardware: &Hardware, known: Option<Vin>) -> Self {
        let states = (0..hardware.doip_ports.len()).map(|index| open(hardware, index)).collect();
        Self { hardware: hardware.clone(), states, known }
    }

    /// Stops listening.
    pub(super) fn clear(&mut self) {
        self.states.clear();
    }

    /// Whether another VIN than the known one was announced.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_news = false;
        for (index, state) in self.states.iter_mut().enumerate() {
            loop {
                let next = match state {
                    State::Opening(opening) => match opening.as_mut().poll(cx) {
                        Poll::Ready(Ok(network)) => State::Listening(Box::new(Explorer::new(network))),
                        Poll::Ready(Err(error)) => {
                            tracing::debug!(%error, "announcements are not heard");
                            lost()
                        }
                        Poll::Pending => break,
                    },
                    State::Listening(explorer) => match explorer.poll(cx) {
                        Poll::Ready(Ok(
                            DiscoveryEvent::Found(gateway) | DiscoveryEvent::Changed(gateway),
                        )) => {
                            let vin = gateway.announcement.vin().ok();
                            is_news |= vin.is_some() && vin != self.known;
                            continue;
                        }
                        Poll::Ready(Ok(DiscoveryEvent::Refused { .. })) => continue,
                        Poll::Ready(Err(error)) => {
                            tracing::debug!(%error, "announcements are no longer heard");
                            lost()
                        }
                        Poll::Pending => break,
                    },
                    State::Lost(until, deadline) => {
                        deadline.set(Some(*until));
                        if deadline.poll_expired(cx).is_pending() {
                            break;
                        }
                        open(&self.hardware, index)
                    }
                };
                *state = next;
            }
        }
        is_news
    }
}

fn open(hardware: &Hardware, index: usize) -> State {
    match hardware.doip_ports.get(index) {
        Some(port) => {
            let network = hardware.doip.network(hardware.doip.network_configuration);
            State::Opening((hardware.open_doip)(port, &network, Purpose::Listen))
        }
        None => lost(),
    }
}

fn lost() -> State {
    let until = tokio::time::Instant::now().into_std() + RETRY_AFTER;
    State::Lost(until, Deadline::new(TimerKind::Runtime))
}
