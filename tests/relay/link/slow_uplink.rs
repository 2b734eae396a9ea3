//! A full bus that is monitored over a slow uplink, beside requests on another channel.

use std::time::Duration;

use connector_test_support::slow_uplink::{FULL_BUS, HALF_MBIT, SCENE, Scene, run};

#[test]
fn requests_stay_fast_beside_a_full_bus_on_a_slow_uplink() {
    // with the queue of a socket, and with the queue of a modem
    for queue in [32_000.0, 500_000.0] {
        let outcome = run(&Scene { queue, ..SCENE });
        let idle = SCENE.round_trip;
        assert!(outcome.quantile(0.5) < idle * 3 / 2, "{:?}", outcome.quantile(0.5));
        assert!(outcome.quantile(0.97) < idle * 3 / 2, "{:?}", outcome.quantile(0.97));
        assert!(outcome.frames + outcome.dropped > FULL_BUS * 117, "{outcome:?}");
        // 25 bytes a record
        let possible = SCENE.seconds as f64 * HALF_MBIT / 25.0;
        assert!(outcome.frames as f64 > 0.8 * possible, "the uplink is used: {}", outcome.frames);
    }
}

#[test]
fn requests_are_fast_again_soon_after_the_uplink_became_slower() {
    let outcome =
        run(&Scene { speeds: &[(0, 1_000_000.0), (30, HALF_MBIT / 2.0)], queue: 500_000.0, ..SCENE });
    let late: Vec<_> =
        outcome.responses.iter().filter(|response| **response > Duration::from_millis(200)).collect();
    assert!(late.len() <= 4, "{late:?}");
}

#[test]
fn the_frames_use_an_uplink_that_became_faster() {
    let outcome = run(&Scene { speeds: &[(0, HALF_MBIT), (30, 1_000_000.0)], ..SCENE });
    assert!(outcome.dropped < FULL_BUS * 40, "{outcome:?}");
}

#[test]
fn no_frame_is_dropped_where_the_uplink_is_fast_enough() {
    for jitter in [0, 20, 80, 200] {
        let jitter = Duration::from_millis(jitter);
        let outcome = run(&Scene { speeds: &[(0, 500_000.0)], queue: 500_000.0, jitter, ..SCENE });
        assert_eq!(outcome.dropped, 0);
        assert!(outcome.frames > FULL_BUS * 119);
    }
}
