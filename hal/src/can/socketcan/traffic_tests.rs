use super::*;
use crate::can::CanId;

fn frame(id: u32, data: &[u8]) -> CanFrame {
    CanFrame::new(CanId::try_from(id).unwrap(), data).unwrap()
}

/// A bus whose socket has taken these frames.
fn sent(frames: &[CanFrame]) -> (Traffic, Instant) {
    let now = Instant::now();
    let mut traffic = Traffic::new(BusState::Active, now);
    frames.iter().for_each(|frame| traffic.handle_sent(frame));
    (traffic, now)
}

fn echo(traffic: &mut Traffic, at: Instant, frame: CanFrame, dropped: u32) {
    let message = SocketMessage { frame: Some(frame), at, is_echo: true, dropped: Some(dropped) };
    traffic.handle_message(at, &message);
}

/// For each outcome, whether the frame was sent.
fn outcomes(traffic: &mut Traffic) -> Vec<bool> {
    let events = std::iter::from_fn(|| traffic.poll_event());
    let outcomes = events.filter_map(|event| match event {
        CanEvent::Transmitted { .. } => Some(true),
        CanEvent::TransmitFailed { .. } => Some(false),
        _ => None,
    });
    outcomes.collect()
}

#[test]
fn an_echo_that_overtakes_another_fails_no_frame() {
    let (consecutive, raw) = (frame(0x7E8, &[0x21]), frame(0x6F1, &[1]));
    let (mut traffic, now) = sent(&[consecutive, raw, consecutive]);
    echo(&mut traffic, now, raw, 0);
    // outcomes are reported in the order of the frames
    assert_eq!(outcomes(&mut traffic), []);
    echo(&mut traffic, now, consecutive, 0);
    assert_eq!(outcomes(&mut traffic), [true, true]);
    echo(&mut traffic, now, consecutive, 0);
    assert_eq!((outcomes(&mut traffic), traffic.has_unconfirmed()), (vec![true], false));
}

#[test]
fn the_echo_of_a_later_frame_of_the_same_identifier_proves_a_loss() {
    let frames = [frame(0x7E8, &[0x21]), frame(0x6F1, &[1]), frame(0x7E8, &[0x22])];
    let (mut traffic, now) = sent(&frames);
    echo(&mut traffic, now, frames[2], 0);
    assert_eq!((outcomes(&mut traffic), traffic.has_unconfirmed()), (vec![false], true));
    echo(&mut traffic, now, frames[1], 0);
    assert_eq!((outcomes(&mut traffic), traffic.has_unconfirmed()), (vec![true, true], false));
    // the same number with 29 bits is another identifier
    let (mut traffic, now) = sent(&[frame(0x100, &[1]), frame(0x8000_0100, &[2])]);
    echo(&mut traffic, now, frame(0x8000_0100, &[2]), 0);
    assert_eq!(outcomes(&mut traffic), []);
}

/// The outcomes since the last call: how many older frames have none, and whether the frame was sent.
fn places(traffic: &mut Traffic) -> Vec<(usize, bool)> {
    let place = |event| match event {
        CanEvent::Transmitted { .. } => Some((0, true)),
        CanEvent::TransmitFailed { .. } => Some((0, false)),
        CanEvent::Overtaking { older, is_transmitted, .. } => Some((older, is_transmitted)),
        _ => None,
    };
    std::iter::from_fn(|| traffic.poll_event()).filter_map(place).collect()
}

#[test]
fn an_overtaking_echo_is_reported_immediately_if_the_owner_wants_that() {
    let frames = [0x7E8, 0x6F1, 0x7E8, 0x100].map(|id| frame(id, &[id as u8]));
    let (mut traffic, now) = sent(&frames);
    traffic.report_overtaking();
    echo(&mut traffic, now, frames[1], 0);
    assert_eq!(places(&mut traffic), [(1, true)]);
    echo(&mut traffic, now, frames[3], 0);
    assert_eq!(places(&mut traffic), [(2, true)]);
    echo(&mut traffic, now, frames[0], 0);
    echo(&mut traffic, now, frames[2], 0);
    assert_eq!((places(&mut traffic), traffic.has_unconfirmed()), (vec![(0, true), (0, true)], false));

    // a frame that was lost, behind one that still waits
    let frames = [frame(0x7E8, &[1]), frame(0x100, &[1]), frame(0x100, &[2])];
    let (mut traffic, now) = sent(&frames);
    traffic.report_overtaking();
    echo(&mut traffic, now, frames[2], 0);
    assert_eq!(places(&mut traffic), [(1, false), (1, true)]);
    echo(&mut traffic, now, frames[0], 0);
    assert_eq!((places(&mut traffic), traffic.has_unconfirmed()), (vec![(0, true)], false));
}

#[test]
fn frames_whose_echoes_the_socket_dropped_count_as_sent() {
    let frames = [frame(0x7E8, &[0x21]), frame(0x6F1, &[1]), frame(0x7E8, &[0x22])];
    let (mut traffic, now) = sent(&frames);
    echo(&mut traffic, now, frames[2], 7);
    assert_eq!((outcomes(&mut traffic), traffic.has_unconfirmed()), (vec![true; 3], false));
}
