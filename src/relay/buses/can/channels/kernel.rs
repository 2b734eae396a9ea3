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
    ///
    /// On a bus that is not proved, the PDU waits while any frame has no outcome: a PDU is one frame until its receiver
    /// has answered.
    pub(crate) fn kernel_pdu(&self, number: u16) -> Option<&[u8]> {
        let may_send = self.is_proved() || self.next.is_none() && self.is_window_open();
        self.kernel(number).and_then(KernelIsotp::pdu).filter(|_| may_send)
    }

    /// The PDUs that the kernel is sending.
    pub(super) fn kernel_pdus(&self) -> usize {
        self.channels.values().filter_map(CanChannel::kernel).filter(|kernel| kernel.has_pdu()).count()
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
    use crate::relay::buses::channel_setup::ChannelKind;
    use crate::relay::buses::channels::Channels;
    use crate::relay::channel::{
        Output, PduChannel, PduChannelSettings, PduToSend, RawChannel, ResponseTiming,
    };
    use crate::relay::limits::RelayLimits;
    use crate::relay::wire::codec::{PduFlags, SendFailedDetail};

    fn id(id: u32) -> CanId {
        CanId::try_from(id).unwrap()
    }

    fn channels(needs_proof: bool) -> CanChannels {
        let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
        CanChannels::new("vehicle", settings, IsotpStack::Kernel).with_proof(needs_proof)
    }

    /// A channel to the ECU with this request identifier.
    fn channel(request: u32, now: Instant) -> CanChannel {
        let config = Config::new(Addressing::normal(id(request), id(request + 8)));
        let kernel = Box::new(KernelIsotp::new(&config, 8200).unwrap());
        let timing = ResponseTiming { p2: Duration::from_millis(50), p2_star: Duration::from_secs(5) };
        let settings = PduChannelSettings { keep_alive: false, timing };
        CanChannel::Kernel(Box::new(PduChannel::new(kernel, settings, now)))
    }

    fn send(channels: &mut CanChannels, now: Instant, number: u16, max_age: Duration) {
        let pdu = PduToSend { flags: PduFlags::default(), expires: now + max_age, data: &[0x3E, 0] };
        channels.handle_pdu(now, number, pdu);
    }

    #[test]
    fn a_pdu_that_the_kernel_does_not_take_becomes_too_old_and_is_never_sent() {
        let (mut channels, start) = (channels(false), Instant::now());
        channels.insert(1, channel(0x7E0, start));
        send(&mut channels, start, 1, Duration::from_millis(300));
        assert!(channels.kernel_pdu(1).is_some());
        let expires = start + Duration::from_millis(300);
        assert_eq!(channels.poll_timeout(), Some(expires));
        channels.handle_reset(start);
        channels.handle_timeout(expires);
        let output = channels.poll_output().unwrap().output;
        assert_eq!(output, Output::send_failed(SendFailedDetail::TooOld));
        assert_eq!(channels.kernel_pdu(1), None);
        assert_eq!(channels.poll_output(), None);
        // once the kernel has taken a PDU, it no longer becomes too old
        send(&mut channels, expires, 1, Duration::from_millis(300));
        channels.handle_pdu_taken(expires, 1, Ok(()));
        channels.handle_timeout(expires + Duration::from_millis(300));
        assert_eq!(channels.poll_output(), None);
    }

    #[test]
    fn a_silent_bus_gets_one_frame_of_the_kernel_or_the_agent_until_it_is_acknowledged() {
        let second = Duration::from_secs(1);
        let (mut channels, start) = (channels(true), Instant::now());
        channels.insert(1, channel(0x7E0, start));
        channels.insert(2, channel(0x7E1, start));
        channels.insert(3, CanChannel::Raw(RawChannel::new(Some(id(0x100)), None, false)));
        send(&mut channels, start, 1, second);
        send(&mut channels, start, 2, second);
        let raw = CanFrame::new(id(0x100), &[1]).unwrap();
        channels.handle_frame_to_send(start, 3, raw, start + second);
        assert!(channels.kernel_pdu(1).is_some());
        channels.handle_pdu_taken(start, 1, Ok(()));
        assert_eq!(channels.kernel_pdu(2), None);
        assert_eq!(channels.poll_transmit(start), None);
        // the echo of the kernel's frame: a node has acknowledged it
        let own = CanFrame::new(id(0x7E0), &[2, 0x3E, 0]).unwrap();
        channels.handle_event(start, &CanEvent::Received { frame: own, at: start });
        assert!(channels.kernel_pdu(2).is_some());
        assert_eq!(channels.poll_transmit(start), Some(raw));
        // after a reset, the frame of the agent comes first
        channels.handle_reset(start);
        while channels.poll_output().is_some() {}
        channels.handle_frame_to_send(start, 3, raw, start + second);
        assert_eq!(channels.poll_transmit(start), Some(raw));
        send(&mut channels, start, 1, second);
        assert_eq!(channels.kernel_pdu(1), None);
        channels.handle_accepted(start);
        assert_eq!(channels.kernel_pdu(1), None);
        channels.handle_event(start, &CanEvent::Transmitted { at: start });
        assert!(channels.kernel_pdu(1).is_some());
    }

    #[test]
    fn on_a_bus_with_can_fd_the_agents_own_isotp_carries_every_channel() {
        for (data_bit_rate, is_kernel) in [(None, true), (Some(2_000_000), false)] {
            let settings = CanSettings { bit_rate: 500_000, data_bit_rate, listen_only: false };
            let mut channels = CanChannels::new("vehicle", settings, IsotpStack::Kernel);
            let fields = serde_json::json!({
                "bus_name": "vehicle", "request_id": 0x7E0, "response_id": 0x7E8, "frame_format": "classic",
            });
            let kind = ChannelKind::Isotp(serde_json::from_value(fields).unwrap());
            channels.open_channel(Instant::now(), 1, &kind, &RelayLimits::default()).unwrap();
            assert_eq!(channels.kernel_socket(1).is_some(), is_kernel);
        }
    }

    #[test]
    fn a_scan_leaves_an_ecu_alone_with_which_the_kernel_exchanges_pdus() {
        let (mut channels, start) = (channels(false), Instant::now());
        channels.insert(1, channel(0x7E0, start));
        send(&mut channels, start, 1, Duration::from_secs(1));
        let channel = channels.channels.get(&1).unwrap();
        assert!(channel.is_busy_with(id(0x7E0)) && !channel.is_busy_with(id(0x7E1)));
    }

    #[test]
    fn a_raw_channel_does_not_receive_frames_of_the_kernel_even_if_they_are_read_late() {
        let (mut channels, start) = (channels(false), Instant::now());
        channels.insert(1, channel(0x7E0, start));
        channels.insert(2, CanChannel::Raw(RawChannel::new(None, None, false)));
        send(&mut channels, start, 1, Duration::from_secs(1));
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
