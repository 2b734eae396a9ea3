//! The kernel's ISO-TP as a transport. The test simulates the socket and the bus.

use super::*;
use connector_hal::can::CanId;

fn id(id: u32) -> CanId {
    CanId::try_from(id).unwrap()
}

fn ecu(data: &[u8]) -> CanFrame {
    CanFrame::new(id(0x7E8), data).unwrap()
}

fn own(data: &[u8]) -> CanFrame {
    CanFrame::new(id(0x7E0), data).unwrap()
}

fn transport() -> (KernelIsotp, Instant) {
    let config = Config::new(Addressing::normal(id(0x7E0), id(0x7E8)));
    (KernelIsotp::new(&config, 8200).unwrap(), Instant::now())
}

fn events(transport: &mut KernelIsotp) -> Vec<TransportEvent> {
    std::iter::from_fn(|| transport.poll_event()).collect()
}

fn received(pdu: &[u8]) -> TransportEvent {
    TransportEvent::Received { address: 0x7E8, pdu: pdu.to_vec() }
}

fn failed(detail: SendFailedDetail) -> Vec<TransportEvent> {
    vec![TransportEvent::SendFailed { detail }]
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Sends a PDU that the kernel accepts.
fn send(transport: &mut KernelIsotp, now: Instant) {
    transport.send(now, &[0x22, 0xF1, 0x90]).unwrap();
    assert_eq!(transport.pdu(), Some(&[0x22, 0xF1, 0x90][..]));
    transport.handle_taken(now, Ok(()));
    assert_eq!(transport.pdu(), None);
}

#[test]
fn a_pdu_is_passed_to_the_socket_once_and_its_end_is_reported_with_its_duration() {
    let (mut transport, start) = transport();
    send(&mut transport, start);
    assert_eq!(transport.send(start, &[1]), Err(SendFailedDetail::QueueFull));
    assert!(!transport.handle_frame(start + ms(1), &own(&[3, 0x22, 0xF1, 0x90])));
    transport.handle_socket(start + ms(7), IsotpEvent::Sent);
    assert_eq!(events(&mut transport), [TransportEvent::Sent { elapsed: ms(7) }]);
    assert_eq!(transport.poll_timeout(), None);
}

#[test]
fn a_channel_of_fd_frames_is_not_carried_by_the_kernel() {
    for (frame_size, is_carried) in [(FrameSize::Classic, true), (FrameSize::fd(64, true).unwrap(), false)] {
        let config = Config { frame_size, ..Config::new(Addressing::normal(id(0x7E0), id(0x7E8))) };
        let transport = KernelIsotp::new(&config, 8200);
        assert_eq!(transport.is_some(), is_carried);
        assert_eq!(transport.and_then(|transport| transport.socket().0.fd), None);
    }
}

#[test]
fn a_pdu_that_the_kernel_does_not_take_fails_after_n_as_and_is_never_sent() {
    let (mut transport, start) = transport();
    transport.send(start, &[0x3E, 0]).unwrap();
    assert!(!transport.has_begun());
    transport.handle_reset();
    assert_eq!(transport.poll_timeout(), Some(start + ms(1000)));
    transport.handle_timeout(start + ms(1000));
    assert_eq!(events(&mut transport), failed(SendFailedDetail::NotAcknowledged));
    assert_eq!(transport.pdu(), None);
    assert!(!transport.is_stuck(), "nothing is in the adapter");
    // the next one has its own time
    transport.send(start + ms(5000), &[0x3E, 0]).unwrap();
    transport.handle_taken(start + ms(5500), Ok(()));
    assert!(transport.has_begun());
    assert_eq!(transport.poll_timeout(), Some(start + ms(6500)));
}

#[test]
fn a_pdu_that_the_kernel_cannot_take_is_refused() {
    let (mut transport, start) = transport();
    for pdu in [&[][..], &[0; 8201]] {
        assert_eq!(transport.send(start, pdu), Err(SendFailedDetail::RefusedByPolicy));
    }
    transport.send(start, &[0; 8200]).unwrap();
    transport.handle_taken(start, Err(IsotpSendError::InterfaceDown));
    assert_eq!(events(&mut transport), failed(SendFailedDetail::BusOff));
    let config = Config::new(Addressing::normal(id(0x7E0), id(0x7E8)));
    let detection = Config { padding: Padding::Detection(0xCC), ..config };
    assert!(KernelIsotp::new(&detection, 8200).is_none());
}

#[test]
fn a_reception_is_reported_from_its_first_frame() {
    let (mut transport, start) = transport();
    assert!(transport.handle_frame(start, &ecu(&[0x10, 10, 1, 2, 3, 4, 5, 6])));
    assert_eq!(events(&mut transport), [TransportEvent::ReceptionStarted]);
    assert!(transport.is_receiving() && transport.is_receiving_from(&ecu(&[0x21, 1])));
    transport.handle_frame(start + ms(1000), &ecu(&[0x21, 7, 8, 9, 10]));
    assert_eq!(transport.poll_timeout(), Some(start + ms(2500)));
    transport.handle_socket(start + ms(1001), IsotpEvent::Received((1..=10).collect()));
    assert_eq!(events(&mut transport), [received(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])]);
    assert!(!transport.is_receiving());
}

#[test]
fn a_pdu_that_arrives_before_its_frames_is_reported_in_order_and_once() {
    let (mut transport, start) = transport();
    transport.handle_socket(start, IsotpEvent::Received(vec![0x7E, 0]));
    assert_eq!(events(&mut transport), [TransportEvent::ReceptionStarted, received(&[0x7E, 0])]);
    transport.handle_frame(start, &ecu(&[2, 0x7E, 0]));
    assert!(events(&mut transport).is_empty() && !transport.is_receiving());
    transport.handle_frame(start, &ecu(&[2, 0x7E, 0]));
    assert_eq!(events(&mut transport), [TransportEvent::ReceptionStarted]);
}

#[test]
fn failed_receptions_are_reported_as_by_the_agents_own_endpoint() {
    let (mut transport, start) = transport();
    let first = ecu(&[0x10, 10, 1, 2, 3, 4, 5, 6]);
    let failed = |failure| {
        let (detail, text) = receive_failed(failure);
        TransportEvent::ReceiveFailed { detail, text }
    };
    transport.handle_frame(start, &first);
    transport.handle_frame(start, &first);
    let started = TransportEvent::ReceptionStarted;
    let all = [started.clone(), failed(ReceiveFailure::Interrupted), started.clone()];
    assert_eq!(events(&mut transport), all);
    let error = IsotpReceiveError::WrongSequenceNumber;
    transport.handle_socket(start, IsotpEvent::ReceiveFailed(error));
    assert_eq!(events(&mut transport), [failed(ReceiveFailure::WrongSequenceNumber)]);
    assert!(!transport.is_receiving());
    // the kernel reports nothing
    transport.handle_frame(start, &first);
    transport.handle_timeout(start + ms(1500));
    assert_eq!(events(&mut transport), [started.clone(), failed(ReceiveFailure::ConsecutiveFrameTimeout)]);
    transport.handle_frame(start, &ecu(&[0x10, 0, 0, 0, 0x20, 0x09, 1, 2]));
    assert_eq!(events(&mut transport), [started, failed(ReceiveFailure::TooLong)]);
    assert!(!transport.is_receiving());
}

#[test]
fn a_timeout_is_attributed_by_the_time_of_the_last_own_frame() {
    let (mut transport, start) = transport();
    send(&mut transport, start);
    transport.handle_frame(start, &own(&[0x10, 8]));
    transport.handle_socket(start + ms(1000), IsotpEvent::SendFailed(IsotpSendError::Timeout));
    assert_eq!(events(&mut transport), failed(SendFailedDetail::FlowControlTimeout));
    assert!(!transport.is_stuck());
    send(&mut transport, start);
    transport.handle_frame(start, &own(&[0x10, 8]));
    transport.handle_socket(start + ms(2000), IsotpEvent::SendFailed(IsotpSendError::Timeout));
    assert_eq!(events(&mut transport), failed(SendFailedDetail::NotAcknowledged));
    assert!(transport.is_stuck());
    transport.handle_reset();
    assert!(!transport.is_stuck());
}

#[test]
fn an_unacknowledged_frame_fails_after_n_as_and_late_reports_are_ignored() {
    let (mut transport, start) = transport();
    send(&mut transport, start);
    assert_eq!(transport.poll_timeout(), Some(start + ms(1000)));
    transport.handle_timeout(start + ms(1000));
    assert_eq!(events(&mut transport), failed(SendFailedDetail::NotAcknowledged));
    assert!(transport.is_stuck());
    transport.send(start + ms(1000), &[0x3E, 0]).unwrap();
    transport.handle_socket(start + ms(2000), IsotpEvent::SendFailed(IsotpSendError::Timeout));
    assert!(events(&mut transport).is_empty());
    transport.handle_taken(start + ms(2000), Ok(()));
    transport.handle_socket(start + ms(2001), IsotpEvent::Sent);
    assert_eq!(events(&mut transport), [TransportEvent::Sent { elapsed: ms(1001) }]);
}

#[test]
fn bus_off_and_a_new_socket_end_the_pdu_that_is_being_sent() {
    let (mut transport, start) = transport();
    send(&mut transport, start);
    transport.handle_bus_off(start);
    assert_eq!(events(&mut transport), failed(SendFailedDetail::BusOff));
    transport.handle_reset();
    assert!(events(&mut transport).is_empty());
    send(&mut transport, start);
    transport.handle_reset();
    assert_eq!(events(&mut transport), failed(SendFailedDetail::NotAcknowledged));
    // a PDU that the socket had not accepted is sent by the next socket
    transport.send(start, &[1]).unwrap();
    transport.handle_reset();
    assert_eq!(transport.pdu(), Some(&[1][..]));
    transport.abort_send();
    assert_eq!(transport.pdu(), None);
}

#[test]
fn only_frames_that_the_kernel_may_be_sending_count_as_own() {
    let (mut transport, start) = transport();
    let frame = own(&[3, 0x22, 0xF1, 0x90]);
    assert!(!transport.is_own_frame(start, &frame));
    send(&mut transport, start);
    assert!(transport.is_own_frame(start, &frame));
    assert!(!transport.is_own_frame(start, &ecu(&[1, 0x7E])));
    transport.handle_socket(start, IsotpEvent::Sent);
    assert!(transport.is_own_frame(start + ms(100), &frame));
    assert!(!transport.is_own_frame(start + ms(101), &frame));
}
