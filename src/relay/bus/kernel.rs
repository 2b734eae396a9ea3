//! Channels of a bus whose PDUs the kernel carries.

use std::time::Instant;

use connector_hal::can::{CanFrame, IsotpEvent, IsotpSendError};

use super::{BusCore, collect};
use crate::relay::channel::{Channel, KernelIsotp};

impl BusCore {
    fn kernel(&self, number: u16) -> Option<&KernelIsotp> {
        self.channels.get(&number).and_then(Channel::kernel)
    }

    /// The PDU that the channel's socket should take; the same until [`BusCore::handle_pdu_taken`].
    pub fn kernel_pdu(&self, number: u16) -> Option<&[u8]> {
        self.kernel(number).and_then(KernelIsotp::pdu)
    }

    /// The socket took the PDU, or will not take it at all.
    pub fn handle_pdu_taken(&mut self, now: Instant, number: u16, taken: Result<(), IsotpSendError>) {
        self.with_kernel(now, number, |kernel| kernel.handle_taken(now, taken));
    }

    /// What the channel's socket reports.
    pub fn handle_socket(&mut self, now: Instant, number: u16, event: IsotpEvent) {
        self.with_kernel(now, number, |kernel| kernel.handle_socket(now, event));
    }

    fn with_kernel(&mut self, now: Instant, number: u16, act: impl FnOnce(&mut KernelIsotp)) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.with_kernel(now, act);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    pub(super) fn reset_kernels(&mut self, now: Instant) {
        self.for_each_channel(now, |channel| channel.with_kernel(now, KernelIsotp::handle_reset));
    }

    /// Whether a frame is one that the kernel sends for a channel.
    pub(super) fn is_kernels(&self, now: Instant, frame: &CanFrame) -> bool {
        let mut kernels = self.channels.values().filter_map(Channel::kernel);
        kernels.any(|kernel| kernel.is_own_frame(now, frame))
    }

    /// Whether the kernel has left a frame in the adapter that nobody acknowledges; it should be restarted, then
    /// [`BusCore::handle_reset`] called.
    pub fn is_kernel_stuck(&self) -> bool {
        self.channels.values().filter_map(Channel::kernel).any(KernelIsotp::is_stuck)
    }
}
