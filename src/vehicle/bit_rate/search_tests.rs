use connector_hal::can::CanId;

use super::*;

const LISTEN: Duration = Duration::from_millis(100);

struct SearchRig {
    search: BitRateSearch,
    now: Instant,
}

impl SearchRig {
    fn new(listen_only: bool) -> Self {
        let now = Instant::now();
        let settings = SearchSettings {
            bit_rates: vec![500_000, 250_000],
            listen_time: LISTEN,
            listen_budget: Duration::from_millis(700),
            listen_only,
        };
        Self { search: BitRateSearch::new(settings), now }
    }

    fn expect_listening(&mut self, bit_rate: u32) {
        let step = self.search.poll_step();
        assert_eq!(step, Some(SearchStep::Configure { bit_rate, listen_only: true }));
        self.search.handle_configured(self.now);
    }

    fn expect_asking(&mut self, bit_rate: u32, alive: bool) {
        let step = self.search.poll_step();
        assert_eq!(step, Some(SearchStep::Configure { bit_rate, listen_only: false }));
        self.search.handle_configured(self.now);
        assert_eq!(self.search.poll_step(), Some(SearchStep::Ask { bit_rate, alive }));
    }

    fn expect_giving_up(&mut self, reason: GiveUp) {
        assert_eq!(self.search.poll_step(), Some(SearchStep::GiveUp(reason)));
        assert_eq!(self.search.poll_step(), None);
        assert_eq!(self.search.poll_timeout(), None);
    }

    fn time_passes(&mut self) {
        self.now = self.search.poll_timeout().unwrap();
        self.search.handle_timeout(self.now);
    }

    fn hear(&mut self, frame: CanFrame) {
        self.search.handle_frame(self.now, &frame);
    }
}

fn data() -> CanFrame {
    CanFrame::new(CanId::standard(0x123).unwrap(), &[1, 2]).unwrap()
}

fn error() -> CanFrame {
    const PROTOCOL_VIOLATION: u32 = 0x8;
    CanFrame::new_error(PROTOCOL_VIOLATION, [0; 8])
}

#[test]
fn listening_ends_with_the_first_frame() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    rig.hear(data());
    rig.expect_asking(500_000, true);
}

#[test]
fn after_only_errors_the_search_tries_the_next_bit_rate() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    rig.hear(error());
    rig.time_passes();
    rig.expect_listening(250_000);
    rig.hear(data());
    rig.expect_asking(250_000, true);
}

#[test]
fn listening_ends_early_after_many_errors() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    for _ in 0..ERRORS_ENOUGH {
        assert_eq!(rig.search.poll_step(), None);
        rig.hear(error());
    }
    rig.expect_listening(250_000);
}

#[test]
fn a_bus_with_errors_at_every_bit_rate_is_never_asked() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    rig.hear(error());
    rig.time_passes();
    rig.expect_listening(250_000);
    rig.search.handle_bus_state(rig.now, BusState::Passive);
    rig.time_passes();
    rig.expect_giving_up(GiveUp::UnknownBitRate);
}

#[test]
fn a_bus_in_use_gets_requests_only_at_a_bit_rate_with_frames() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    rig.time_passes();
    rig.expect_listening(250_000);
    rig.hear(error());
    rig.time_passes();
    rig.expect_listening(500_000);
    rig.hear(data());
    rig.expect_asking(500_000, true);
}

#[test]
fn waiting_for_a_frame_that_shows_the_bit_rate_ends_in_time() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    rig.hear(error());
    rig.time_passes();
    let mut waited = 0;
    while let Some(SearchStep::Configure { bit_rate, .. }) = rig.search.poll_step() {
        assert_eq!(bit_rate, 250_000);
        rig.search.handle_configured(rig.now);
        rig.time_passes();
        waited += 1;
    }
    assert_eq!(waited, 6);
    assert_eq!(rig.search.poll_timeout(), None);
}

#[test]
fn a_silent_bus_is_asked_at_each_bit_rate_until_an_acknowledgement() {
    let mut rig = SearchRig::new(true);
    rig.expect_listening(500_000);
    rig.time_passes();
    rig.expect_listening(250_000);
    rig.time_passes();
    rig.expect_asking(500_000, false);
    rig.search.handle_unacknowledged();
    rig.expect_asking(250_000, false);
    rig.search.handle_unacknowledged();
    rig.expect_giving_up(GiveUp::NoNode);
}

#[test]
fn an_adapter_that_cannot_listen_only_stays_at_its_bit_rate() {
    let mut rig = SearchRig::new(false);
    let step = rig.search.poll_step();
    assert_eq!(step, Some(SearchStep::Configure { bit_rate: 500_000, listen_only: false }));
    rig.search.handle_configured(rig.now);
    rig.hear(data());
    assert_eq!(rig.search.poll_step(), Some(SearchStep::Ask { bit_rate: 500_000, alive: true }));

    let mut rig = SearchRig::new(false);
    rig.search.poll_step();
    rig.search.handle_configured(rig.now);
    rig.hear(error());
    rig.time_passes();
    rig.expect_giving_up(GiveUp::UnknownBitRate);
}

#[test]
fn an_interface_set_up_by_the_system_is_used_as_it_is() {
    let mut rig = SearchRig::new(true);
    for bit_rate in [500_000, 250_000] {
        let step = rig.search.poll_step();
        assert_eq!(step, Some(SearchStep::Configure { bit_rate, listen_only: true }));
        rig.search.handle_refused();
    }
    let step = rig.search.poll_step();
    assert_eq!(step, Some(SearchStep::Configure { bit_rate: 500_000, listen_only: false }));
    rig.search.handle_refused();
    let step = rig.search.poll_step();
    assert_eq!(step, Some(SearchStep::Configure { bit_rate: 250_000, listen_only: false }));
    rig.search.handle_configured(rig.now);
    rig.time_passes();
    assert_eq!(rig.search.poll_step(), Some(SearchStep::Ask { bit_rate: 250_000, alive: false }));
    rig.search.handle_unacknowledged();
    rig.expect_giving_up(GiveUp::NoNode);
}

#[test]
fn an_adapter_that_supports_no_bit_rate_ends_the_search() {
    let mut rig = SearchRig::new(true);
    for _ in 0..4 {
        assert!(matches!(rig.search.poll_step(), Some(SearchStep::Configure { .. })));
        rig.search.handle_refused();
    }
    rig.expect_giving_up(GiveUp::Refused);
}

#[test]
fn an_error_frame_about_the_controller_does_not_count_as_a_bit_rate_error() {
    const CONTROLLER_IS_ACTIVE_AGAIN: [u8; 8] = [0, 0x40, 0, 0, 0, 0, 0, 0];
    assert!(!reports_bus_error(&CanFrame::new_error(CLASS_CONTROLLER, CONTROLLER_IS_ACTIVE_AGAIN)));
    assert!(!reports_bus_error(&CanFrame::new_error(CLASS_RESTARTED, [0; 8])));
    assert!(reports_bus_error(&CanFrame::new_error(CLASS_CONTROLLER, [0, 0x10, 0, 0, 0, 0, 0, 0])));
    assert!(reports_bus_error(&error()));
    assert!(!reports_bus_error(&data()));
}
