//! All ports and networks while nothing is asked on them.

use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::timer::{Deadline, TimerKind};

use super::announcements::Announcements;
use super::port::WatchedPort;
use super::retry::VinRetry;
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::network::Network;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::doip::OpeningNetwork;
use crate::vehicle::wake_watch::WakeReason;

/// The shell that listens until there is a reason to read the VIN.
pub(super) struct Listening {
    ports: Vec<WatchedPort>,
    announcements: Announcements,
    /// Networks that became ready. They stay open until the next reading opens its own, so that gateways stay
    /// awake.
    ready: Vec<Box<dyn Network>>,
    /// The reason to read the VIN again.
    pub(super) wanted: Option<WakeReason>,
    deadline: Deadline,
}

impl Listening {
    pub(super) fn new(hardware: &Hardware, ports: Vec<WatchedPort>, known: Option<Vin>) -> Self {
        Self {
            ports,
            announcements: Announcements::new(hardware, known),
            ready: Vec::new(),
            wanted: None,
            deadline: Deadline::new(TimerKind::Runtime),
        }
    }

    /// Closes all devices.
    pub(super) fn clear(&mut self) {
        self.ports.clear();
        self.announcements.clear();
    }

    /// Listens on all ports, and to networks.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        hardware: &Hardware,
        retry: &mut VinRetry,
        late: &mut Vec<OpeningNetwork>,
    ) {
        for (watched, port) in self.ports.iter_mut().zip(hardware.can_ports.iter()) {
            if let Some(reason) = watched.poll(cx, now, || (hardware.open_can)(&port.device)) {
                self.wanted = Some(reason);
            }
            if let Some(at) = watched.last_frame() {
                retry.handle_frame(at);
            }
        }
        if self.announcements.poll(cx) {
            self.wanted = Some(WakeReason::Announcement);
        }
        self.poll_late(cx, late);
    }

    /// Networks that were not ready in time for the last reading are a reason for the next one.
    fn poll_late(&mut self, cx: &mut Context<'_>, late: &mut Vec<OpeningNetwork>) {
        late.retain_mut(|opening| match opening.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(network)) => {
                self.ready.push(network);
                self.wanted = Some(WakeReason::Network);
                false
            }
            Poll::Ready(Err(error)) => {
                tracing::warn!(%error, "cannot read the VIN by DoIP");
                false
            }
        });
    }

    /// Wakes the task at the earliest of these times, or when a port must be opened.
    pub(super) fn wake_at(&mut self, cx: &mut Context<'_>, times: [Option<Instant>; 2]) {
        let open_at = self.ports.iter().filter_map(WatchedPort::poll_timeout).min();
        self.deadline.set(times.into_iter().flatten().chain(open_at).min());
        if self.deadline.poll_expired(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
