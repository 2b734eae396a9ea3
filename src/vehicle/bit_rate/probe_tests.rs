use connector_hal::can::CanId;

use super::*;

/// A probe that asks a silent bus at its first bit rate.
fn asking() -> Probe {
    let settings = ProbeSettings {
        bit_rates: vec![500_000, 250_000],
        listen_time: Duration::from_millis(100),
        listen_budget: Duration::from_millis(700),
        data_bit_rate: None,
        budget: None,
    };
    let mut probe = Probe::new(settings, true);
    let mut now = Instant::now();
    loop {
        match probe.poll_step() {
            Some(SearchStep::Configure { bit_rate, listen_only }) => {
                probe.handle_configured(now, CanSettings { bit_rate, data_bit_rate: None, listen_only });
            }
            Some(SearchStep::Ask { .. }) => return probe,
            Some(SearchStep::GiveUp(why)) => panic!("{why:?}"),
            None => {
                now = probe.poll_timeout().unwrap();
                probe.handle_timeout(now);
            }
        }
    }
}

fn received(frame: CanFrame) -> CanEvent {
    CanEvent::Received { frame, at: Instant::now() }
}

#[test]
fn a_bit_rate_at_which_a_node_answered_or_acknowledged_is_kept() {
    let answer = CanFrame::new(CanId::standard_truncated(0x7E8), &[2, 0x7E, 0]).unwrap();
    for (event, confirms) in [(received(answer), false), (CanEvent::Transmitted { at: Instant::now() }, true)]
    {
        let mut probe = asking();
        probe.handle_exchanged(&event, confirms);
        assert!(!probe.handle_unacknowledged(), "{event:?}");
        assert_eq!((probe.bit_rate(), probe.poll_step()), (Some(500_000), None));
    }
}

#[test]
fn a_bit_rate_without_a_sign_of_a_node_is_left() {
    let error = received(CanFrame::new_error(0x20, [0; 8]));
    for event in [error, CanEvent::Transmitted { at: Instant::now() }] {
        let mut probe = asking();
        probe.handle_exchanged(&event, false);
        assert!(probe.handle_unacknowledged(), "{event:?}");
        assert_eq!(probe.bit_rate(), None);
        assert!(matches!(probe.poll_step(), Some(SearchStep::Configure { bit_rate: 250_000, .. })));
    }
}
