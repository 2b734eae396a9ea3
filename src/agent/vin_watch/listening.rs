//! All ports and networks while nothing is asked on them.

use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::timer::{Deadline, TimerKind};

use super::announcements::Announcements;
use super::port::WatchedPort;
use super::schedule::ReadingSchedule;
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::network::Network;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::doip::OpeningNetwork;
use crate::vehicle::wake_watch::WakeReason;

/// The shell that listens until there is a reason to read the VIN.
pub(super) struct Listening {
    ports: Vec<WatchedPort>,
    announcements: Announcements,
    /// Networks that were not ready in time for the last reading.
    late: Vec<OpeningNetwork>,
    /// Networks that became ready. They stay open until the next reading opens its own, so that gateways stay
    /// awake.
    ready: Vec<Box<dyn Network>>,
    deadline: Deadline,
}

impl Listening {
    pub(super) fn new(
        hardware: &Hardware,
        ports: Vec<WatchedPort>,
        late: Vec<OpeningNetwork>,
        known: Option<Vin>,
    ) -> Self {
        Self {
            ports,
            announcements: Announcements::new(hardware, known),
            late,
            ready: Vec::new(),
            deadline: Deadline::new(TimerKind::Runtime),
        }
    }

    /// Closes all devices.
    pub(super) fn clear(&mut self) {
        self.ports.clear();
        self.announcements.clear();
        self.late.clear();
    }

    /// Listens on all ports, and to networks. The schedule gets the reasons to read the VIN.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        hardware: &Hardware,
        schedule: &mut ReadingSchedule,
    ) {
        for (watched, port) in self.ports.iter_mut().zip(hardware.can_ports.iter()) {
            if let Some(reason) = watched.poll(cx, now, || (hardware.open_can)(&port.device)) {
                schedule.handle_wake(reason);
            }
            if let Some(at) = watched.last_frame() {
                schedule.handle_frame(at);
            }
        }
        if self.announcements.poll(cx) {
            schedule.handle_wake(WakeReason::Announcement);
        }
        self.poll_late(cx, schedule);
    }

    /// Networks that were not ready in time for the last reading are a reason for the next one.
    fn poll_late(&mut self, cx: &mut Context<'_>, schedule: &mut ReadingSchedule) {
        self.late.retain_mut(|opening| match opening.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(network)) => {
                self.ready.push(network);
                schedule.handle_wake(WakeReason::Network);
                false
            }
            Poll::Ready(Err(error)) => {
                tracing::warn!(%error, "cannot read the VIN by DoIP");
                false
            }
        });
    }

    /// Wakes the task at this time, or when a port must be opened.
    pub(super) fn wake_at(&mut self, cx: &mut Context<'_>, at: Option<Instant>) {
        let open_at = self.ports.iter().filter_map(WatchedPort::poll_timeout).min();
        self.deadline.set(at.into_iter().chain(open_at).min());
        if self.deadline.poll_expired(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
