//! Signs of another tester on the bus: requests, and answers to requests that the connector did not send.

use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use crate::vehicle::tester_traffic::{is_obd_answer_id, is_obd_request_id, is_request, is_response};

/// How long an ECU may still answer an earlier question of the connector, or a request on a channel that was closed:
/// P2* (5 s, ISO 14229-2) and a margin. Within this time, the ECU's session (S3, 5 s) and its periodic data end too.
const LATE_ANSWERS: Duration = Duration::from_secs(6);
/// How long another tester counts as present: a tester in a session sends TesterPresent at least every 2 s.
const PRESENT: Duration = Duration::from_secs(3);

/// Other testers on the bus, as far as they are noticed.
#[derive(Debug, Default)]
pub(super) struct OtherTesters {
    heard_at: Option<Instant>,
    /// The last question of the present VIN reader or scan.
    asking_at: Option<Instant>,
    /// The last question of earlier ones, or of a channel that is closed.
    asked_at: Option<Instant>,
    /// A channel was closed since the last frame.
    has_closed: bool,
}

impl OtherTesters {
    /// The VIN reader or a scan has asked a question.
    pub(super) fn handle_question(&mut self, now: Instant) {
        self.asking_at = Some(now);
    }

    /// A VIN reader or a scan begins or ends: answers to questions before may still come.
    pub(super) fn handle_change(&mut self) {
        self.asked_at = self.asked_at.max(self.asking_at.take());
    }

    /// A channel was closed, whose ECU may still answer.
    pub(super) fn handle_closed(&mut self) {
        self.has_closed = true;
    }

    /// The bus was set up: answers to a reading before that may still come.
    pub(super) fn handle_set_up(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// Whether another tester was heard a short time ago.
    pub(super) fn are_present(&self, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now < at + PRESENT)
    }

    /// Notes a frame of another tester, or of an ECU that answers another tester. `may_be_channels` says whether the
    /// frame may answer a channel's request. Returns whether the frame may be such an answer, or a late answer to an
    /// earlier question.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: &CanFrame, may_be_channels: bool) -> bool {
        if std::mem::take(&mut self.has_closed) {
            self.asked_at = Some(now);
        }
        let is_recent = |at: Option<Instant>| at.is_some_and(|at| now < at + LATE_ANSWERS);
        let may_be_ours = may_be_channels || is_recent(self.asked_at);
        let is_answer = || is_obd_answer_id(frame.id()) && is_response(frame);
        let is_unasked = !may_be_ours && !is_recent(self.asking_at) && is_answer();
        if is_unasked || is_obd_request_id(frame.id()) && is_request(frame) {
            self.heard_at = Some(now);
        }
        may_be_ours
    }
}

#[cfg(test)]
mod tests {
    use connector_hal::can::{CanEvent, CanId, CanSettings};

    use super::super::CanChannels;
    use super::*;
    use crate::config::IsotpStack;
    use crate::protocol::isotp::{
        Addressing, Config, Endpoint, FunctionalConfig, FunctionalEndpoint, Responders,
    };
    use crate::relay::buses::channels::Channels as _;
    use crate::relay::channel::{
        CanChannel, FrameTransport, PduChannel, PduChannelSettings, RawChannel, ResponseTiming,
    };
    use crate::vehicle::scan::{ScanOutcome, ScanRequest};
    use crate::vehicle::vin::ReaderSettings;

    const SECOND: Duration = Duration::from_secs(1);
    const RESPONSE: [u8; 3] = [2, 0x7E, 0];

    /// The channels of a bus that was set up long before `now`.
    struct Bus {
        channels: CanChannels,
        now: Instant,
    }

    impl Bus {
        fn new() -> Self {
            let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
            let mut channels = CanChannels::new("HS", settings, IsotpStack::Own);
            let now = Instant::now();
            channels.handle_reset(now);
            Self { channels, now: now + LATE_ANSWERS }
        }

        fn open(&mut self, number: u16, transport: Box<dyn FrameTransport>) {
            let timing = ResponseTiming { p2: SECOND, p2_star: 5 * SECOND };
            let settings = PduChannelSettings { keep_alive: false, timing };
            let channel = PduChannel::new(transport, settings, self.now);
            self.channels.insert(number, CanChannel::Pdu(Box::new(channel)));
        }

        fn hear(&mut self, from: u32, data: &[u8]) {
            let frame = CanFrame::new(id(from), data).unwrap();
            self.channels.handle_event(self.now, &CanEvent::Received { frame, at: self.now });
        }

        fn start_reader(&mut self) {
            let until = self.now + 2 * SECOND;
            let settings =
                ReaderSettings { until, alive: true, confirms_transmission: true, shares_bus: true };
            self.channels.start_vin_reader(self.now, settings);
        }

        /// Whether a reading of the VIN asks anything.
        fn asks(&mut self) -> bool {
            self.start_reader();
            let asks = self.channels.poll_transmit(self.now).is_some();
            assert_eq!(self.channels.take_vins().is_none(), asks);
            asks
        }
    }

    fn id(raw: u32) -> CanId {
        CanId::standard(raw).unwrap()
    }

    fn endpoint(request: u32) -> Box<dyn FrameTransport> {
        Box::new(Endpoint::new(Config::new(Addressing::normal(id(request), id(request + 8)))))
    }

    #[test]
    fn an_answer_that_no_channel_asked_for_shows_another_tester_for_three_seconds() {
        let mut bus = Bus::new();
        bus.open(1, endpoint(0x7E0));
        bus.hear(0x7E8, &RESPONSE);
        assert!(bus.asks(), "an answer to the channel");
        for (from, frame) in
            [(0x7E9, &RESPONSE[..]), (0x7E9, &[0x10, 20, 0x62, 0xF1, 0x90, 1, 2, 3]), (0x7E1, &[1, 0x3E])]
        {
            let mut bus = Bus::new();
            bus.open(1, endpoint(0x7E0));
            bus.hear(from, frame);
            assert!(!bus.asks(), "{frame:02X?}");
            bus.now += PRESENT;
            assert!(bus.asks());
        }
        let mut bus = Bus::new();
        bus.hear(0x7E9, &[0xA5; 8]);
        bus.hear(0x123, &RESPONSE);
        assert!(bus.asks(), "no answers");
    }

    #[test]
    fn answers_to_functional_and_raw_channels_and_late_ones_show_no_other_tester() {
        let functional = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
        let mut bus = Bus::new();
        bus.open(1, Box::new(functional));
        bus.hear(0x7E9, &RESPONSE);
        assert!(bus.asks());
        let mut bus = Bus::new();
        bus.channels.insert(1, CanChannel::Raw(RawChannel::new(Some(id(0x7E1)), None, false)));
        bus.hear(0x7E9, &RESPONSE);
        assert!(bus.asks());
        // periodic data for a channel that is closed, and then those of another tester
        let mut bus = Bus::new();
        bus.open(1, endpoint(0x7E1));
        bus.channels.close_channel(1);
        bus.hear(0x7E9, &RESPONSE);
        bus.now += 5 * SECOND;
        bus.hear(0x7E9, &RESPONSE);
        assert!(bus.asks());
        // the final answer to a question of that reading, which has ended
        bus.channels.handle_accepted(bus.now);
        bus.start_reader();
        bus.now += 5 * SECOND;
        bus.hear(0x7E9, &RESPONSE);
        assert!(bus.asks());
        bus.now += 10 * SECOND;
        bus.hear(0x7E9, &RESPONSE);
        assert!(!bus.asks());
    }

    #[test]
    fn an_answer_that_no_channel_can_have_asked_for_stops_the_vin_reader() {
        for has_channel in [false, true] {
            let mut bus = Bus::new();
            if has_channel {
                bus.open(1, endpoint(0x7E0));
            }
            bus.start_reader();
            assert!(bus.channels.poll_transmit(bus.now).is_some());
            bus.channels.handle_accepted(bus.now);
            bus.channels.handle_event(bus.now, &CanEvent::Transmitted { at: bus.now });
            bus.hear(0x7E8, &[3, 0x7F, 0x31, 0x78]);
            assert_eq!(bus.channels.take_vins().is_some(), !has_channel);
        }
    }

    #[test]
    fn a_scan_in_a_session_ends_at_an_answer_that_no_channel_asked_for() {
        for (channel, outcome) in [(0x7E0, Some(ScanOutcome::OtherTester)), (0x7E1, None)] {
            let mut bus = Bus::new();
            bus.open(1, endpoint(channel));
            bus.channels.start_scan(bus.now, &ScanRequest::default());
            bus.hear(0x7E9, &RESPONSE);
            assert_eq!(bus.channels.take_scan().map(|(outcome, _)| outcome), outcome);
        }
    }
}
