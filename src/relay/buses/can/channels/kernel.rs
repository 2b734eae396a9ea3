//! The channels whose PDUs the ISO-TP of the kernel carries.

use std::time::Instant;

use connector_hal::can::{CanFrame, IsotpEvent, IsotpOptions, IsotpSendError};

use super::{CanChannels, collect};
use crate::relay::channel::{CanChannel, KernelIsotp};

impl CanChannels {
    fn kernel(&self, number: u16) -> Option<&KernelIsotp> {
        self.channels.get(&number).and_then(CanChannel::kernel)
    }

    /// The options of this channel's socket and the longest PDU that it takes, if the kernel carries its
    /// PDUs.
    pub(in crate::relay::buses::can) fn kernel_socket(&self, number: u16) -> Option<(IsotpOptions, usize)> {
        self.kernel(number).map(KernelIsotp::socket)
    }

    /// Carries the PDUs of this channel with the agent's own ISO-TP instead of the kernel's.
    pub(in crate::relay::buses::can) fn use_own_isotp(&mut self, now: Instant, number: u16) {
        if let Some(channel) = self.channels.remove(&number) {
            self.channels.insert(number, channel.with_own_isotp(now));
        }
    }

    /// The PDU that the channel's socket should take; unchanged until [`CanChannels::handle_pdu_taken`].
    pub(crate) fn kernel_pdu(&self, number: u16) -> Option<&[u8]> {
        self.kernel(number).and_then(KernelIsotp::pdu)
    }

    /// The socket took the PDU, or refused it.
    pub(crate) fn handle_pdu_taken(&mut self, now: Instant, number: u16, taken: Result<(), IsotpSendError>) {
        self.with_kernel(now, number, |kernel| kernel.handle_taken(now, taken));
    }

    /// Handles an event of the channel's socket.
    pub(crate) fn handle_socket(&mut self, now: Instant, number: u16, event: IsotpEvent) {
        self.with_kernel(now, number, |kernel| kernel.handle_socket(now, event));
    }

    fn with_kernel(&mut self, now: Instant, number: u16, act: impl FnOnce(&mut KernelIsotp)) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.with_kernel(now, act);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    pub(super) fn reset_kernel_channels(&mut self, now: Instant) {
        self.for_each_channel(now, |channel| channel.with_kernel(now, KernelIsotp::handle_reset));
    }

    /// Whether the kernel sent this frame for a channel; `at` is the time when the frame was on the bus.
    pub(super) fn is_from_kernel(&self, at: Instant, frame: &CanFrame) -> bool {
        let mut kernels = self.channels.values().filter_map(CanChannel::kernel);
        kernels.any(|kernel| kernel.is_own_frame(at, frame))
    }

    /// Whether the kernel has left a frame in the adapter that no node acknowledges. If so, restart the
    /// adapter and call [`CanChannels::handle_reset`].
    pub(crate) fn is_kernel_stuck(&self) -> bool {
        self.channels.values().filter_map(CanChannel::kernel).any(KernelIsotp::is_stuck)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use connector_hal::can::{CanEvent, CanId, CanSettings};

    use super::*;
    use crate::config::IsotpStack;
    use crate::protocol::isotp::{Addressing, Config};
    use crate::relay::buses::channels::Channels;
    use crate::relay::channel::{PduChannel, PduChannelSettings, PduToSend, RawChannel, ResponseTiming};
    use crate::relay::wire::codec::PduFlags;

    #[test]
    fn a_raw_channel_does_not_receive_frames_of_the_kernel_even_if_they_are_read_late() {
        let id = |id: u32| CanId::try_from(id).unwrap();
        let (mut channels, start) = (
            CanChannels::new(
                "vehicle",
                CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false },
                IsotpStack::Kernel,
            ),
            Instant::now(),
        );
        let config = Config::new(Addressing::normal(id(0x7E0), id(0x7E8)));
        let kernel = Box::new(KernelIsotp::new(&config, 8200).unwrap());
        let settings = PduChannelSettings {
            keep_alive: false,
            timing: ResponseTiming { p2: Duration::from_millis(50), p2_star: Duration::from_secs(5) },
        };
        channels.insert(1, CanChannel::Kernel(Box::new(PduChannel::new(kernel, settings, start))));
        channels.insert(2, CanChannel::Raw(RawChannel::new(None, None, false)));
        let expires = start + Duration::from_secs(1);
        let pdu = PduToSend { flags: PduFlags::default(), expires, data: &[0x3E, 0] };
        channels.handle_pdu(start, 1, pdu);
        assert_eq!(channels.kernel_pdu(1), Some(&[0x3E, 0][..]));
        channels.handle_pdu_taken(start, 1, Ok(()));
        channels.handle_socket(start, 1, IsotpEvent::Sent);

        let read = start + Duration::from_secs(2);
        let own = CanFrame::new(id(0x7E0), &[2, 0x3E, 0]).unwrap();
        channels.handle_event(read, &CanEvent::Received { frame: own, at: start });
        assert_eq!(channels.poll_output(), None);
        // a frame of another tester
        channels.handle_event(read, &CanEvent::Received { frame: own, at: read });
        assert_eq!(channels.poll_output().map(|output| output.channel), Some(2));
    }
}
