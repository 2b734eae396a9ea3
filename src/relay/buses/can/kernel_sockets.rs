//! The sockets of the channels whose PDUs the kernel carries.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::can::{CanBus, CanError, IsotpEvent, IsotpOptions, IsotpSendError, IsotpSocket};

use crate::relay::buses::can::channels::CanChannels;

/// The number of events that are read from one socket before the next one is polled. An event may be a whole
/// PDU, so that the number is lower than for the frames of a bus.
const BATCH: usize = 16;

struct Slot {
    options: IsotpOptions,
    max_pdu: usize,
    /// `None` until the device is available again.
    socket: Option<IsotpSocket>,
}

/// The sockets of the channels of one bus whose PDUs the kernel carries.
#[derive(Default)]
pub(crate) struct KernelSockets {
    slots: BTreeMap<u16, Slot>,
    /// Events of the sockets. They are handled after the frames that were received before them.
    events: VecDeque<(u16, IsotpEvent)>,
}

impl KernelSockets {
    /// Opens a socket for a channel. Without a device, it is opened later.
    ///
    /// # Errors
    ///
    /// The errors of [`CanBus::open_isotp`].
    pub(super) fn add(
        &mut self,
        number: u16,
        (options, max_pdu): (IsotpOptions, usize),
        device: Option<&dyn CanBus>,
    ) -> Result<(), CanError> {
        let socket = device.map(|device| device.open_isotp(&options, max_pdu)).transpose()?;
        self.slots.insert(number, Slot { options, max_pdu, socket });
        Ok(())
    }

    /// Closes the socket of a channel.
    pub(super) fn remove(&mut self, number: u16) {
        self.slots.remove(&number);
        self.events.retain(|(of, _)| *of != number);
    }

    /// Opens all sockets again, because the device was replaced.
    pub(super) fn reset(&mut self, device: &dyn CanBus) {
        self.events.clear();
        for (number, slot) in &mut self.slots {
            // close the old socket first, so that an ECU never gets two answers
            slot.socket = None;
            match device.open_isotp(&slot.options, slot.max_pdu) {
                Ok(socket) => slot.socket = Some(socket),
                Err(error) => {
                    tracing::warn!(channel = number, %error, "cannot open the ISO-TP socket of a channel")
                }
            }
        }
    }

    /// Reads the events of the sockets. Call it before frames are read, and [`KernelSockets::forward_events`]
    /// afterwards.
    pub(crate) fn poll_events(&mut self, cx: &mut Context<'_>) {
        for (number, slot) in &mut self.slots {
            let Some(socket) = &mut slot.socket else { continue };
            let mut taken = 0;
            while let Poll::Ready(event) = socket.poll_event(cx) {
                self.events.push_back((*number, event));
                taken += 1;
                if taken == BATCH {
                    cx.waker().wake_by_ref();
                    break;
                }
            }
        }
    }

    /// Passes the events of the sockets to their channels. Returns whether there were any.
    pub(crate) fn forward_events(&mut self, now: Instant, channels: &mut CanChannels) -> bool {
        let mut any = false;
        while let Some((number, event)) = self.events.pop_front() {
            any = true;
            channels.handle_socket(now, number, event);
        }
        any
    }

    /// Passes the PDUs of the channels to the sockets. A PDU for a socket that could not be opened fails.
    /// Returns whether a socket took or refused one.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        channels: &mut CanChannels,
    ) -> bool {
        let mut any = false;
        for (number, slot) in &mut self.slots {
            while let Some(pdu) = channels.kernel_pdu(*number) {
                let taken = match &mut slot.socket {
                    Some(socket) => socket.poll_send(cx, pdu),
                    None => Poll::Ready(Err(IsotpSendError::InterfaceDown)),
                };
                let Poll::Ready(taken) = taken else { break };
                any = true;
                channels.handle_pdu_taken(now, *number, taken);
            }
        }
        any
    }
}
