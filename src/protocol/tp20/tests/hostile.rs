use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};
use proptest::prelude::*;

use crate::protocol::tp20::{
    Channel, ChannelConfig, CloseReason, MAX_PDU, Parameters, Refusal, SETUP_ID, SendError, SetupMessage,
    SetupOpcode, TimeByte, Tpdu, TpduError,
};

fn frame(id: u32, data: &[u8]) -> CanFrame {
    CanFrame::new(CanId::standard_truncated(id), data).unwrap()
}

#[test]
fn invalid_frames_are_named_in_the_error() {
    assert_eq!(Tpdu::decode(&[]), Err(TpduError::TooShort));
    assert_eq!(Tpdu::decode(&[0xA0, 0x0F]), Err(TpduError::TooShort));
    for first in (0x40..=0x8F).chain([0xA2, 0xA5, 0xA9, 0xC0, 0xFF]) {
        assert_eq!(Tpdu::decode(&[first]), Err(TpduError::UnknownOperation(first)));
    }
}

#[test]
fn frames_for_other_nodes_are_ignored() {
    let now = Instant::now();
    let mut channel = Channel::new(ChannelConfig::new(1.try_into().unwrap(), 0));
    assert!(
        !channel.handle_frame(now, &frame(0x201, &[0, 0xD0, 0, 3, 0x40, 7, 1])),
        "the channel sent no request"
    );
    channel.open();
    assert!(channel.poll_transmit(now).is_some());
    channel.handle_transmitted(now);
    for other in [
        frame(0x202, &[0, 0xD0, 0, 3, 0x40, 7, 1]),
        frame(0x200, &[1, 0xD0, 0, 3, 0x40, 7, 1]),
        CanFrame::new(CanId::extended_truncated(0x201), &[0, 0xD0, 0, 3, 0x40, 7, 1]).unwrap(),
        CanFrame::new_remote(CanId::standard_truncated(0x201), 7).unwrap(),
    ] {
        assert!(!channel.handle_frame(now, &other));
    }
    assert!(!channel.is_open());
}

#[test]
fn an_unread_flood_uses_bounded_memory() {
    let now = Instant::now();
    let mut channel = Channel::new(ChannelConfig::new(1.try_into().unwrap(), 0));
    channel.open();
    channel.poll_transmit(now);
    channel.handle_transmitted(now);
    channel.handle_frame(now, &frame(0x201, &[0, 0xD0, 0, 3, 0x40, 7, 1]));
    channel.poll_transmit(now);
    channel.handle_transmitted(now);
    channel.handle_frame(now, &frame(0x300, &[0xA1, 0x0F, 0x8A, 0xFF, 0x4A, 0xFF]));
    let mut sequence = 0;
    for _ in 0..100_000 {
        channel.handle_frame(now, &frame(0x300, &[0x30 | sequence, 0, 1, 0x7E]));
        sequence = (sequence + 1) & 0x0F;
        // and no frame gets an outcome
        channel.poll_transmit(now);
    }
    let (memory, in_flight, events) = channel.load();
    assert!(memory <= MAX_PDU && in_flight <= 40 && events <= 10, "{memory} {in_flight} {events}");
}

/// Calls a method of the channel again and again, followed by the end of what it began, and reads no event.
fn unread(mut begin: impl FnMut(&mut Channel, Instant)) -> usize {
    let now = Instant::now();
    let mut channel = Channel::new(ChannelConfig::new(1.try_into().unwrap(), 0));
    for round in 0..1000 {
        begin(&mut channel, now);
        while channel.poll_transmit(now).is_some() {}
        match round % 3 {
            0 => channel.close(now),
            1 => channel.handle_transmit_failed(now, CloseReason::BusOff),
            _ => channel.abort_send(),
        }
    }
    channel.load().2
}

#[test]
fn pdus_and_set_ups_whose_events_are_not_read_are_bounded() {
    let pdus = unread(|channel, now| {
        let _ = channel.send(now, &[0x3E]);
    });
    assert!(pdus <= 12, "{pdus} events of PDUs");
    let set_ups = unread(|channel, _| channel.open());
    assert!(set_ups <= 12, "{set_ups} events of set-ups");
}

#[test]
fn a_channel_whose_events_are_read_accepts_pdus_again() {
    let now = Instant::now();
    let mut channel = Channel::new(ChannelConfig::new(1.try_into().unwrap(), 0));
    for _ in 0..16 {
        let _ = channel.send(now, &[0x3E]);
        channel.close(now);
    }
    assert_eq!(channel.send(now, &[0x3E]), Err(SendError::Busy));
    while channel.poll_event().is_some() {}
    assert_eq!(channel.send(now, &[0x3E]), Ok(()));
}

#[test]
fn an_endless_pdu_uses_no_more_memory_than_announced() {
    let now = Instant::now();
    let mut channel = Channel::new(ChannelConfig::new(1.try_into().unwrap(), 0));
    channel.open();
    channel.poll_transmit(now);
    channel.handle_frame(now, &frame(0x201, &[0, 0xD0, 0, 3, 0x40, 7, 1]));
    channel.poll_transmit(now);
    channel.handle_frame(now, &frame(0x300, &[0xA1, 0x0F, 0x8A, 0xFF, 0x4A, 0xFF]));
    for i in 0..100_000_u32 {
        let first = [0x20 | (i & 0x0F) as u8, 0x7F, 0xFF, 1, 2, 3, 4, 5];
        channel.handle_frame(now, &frame(0x300, &first));
        while channel.poll_event().is_some() {}
    }
    assert!(channel.load().0 <= 2 * (MAX_PDU + 9), "{:?}", channel.load());
}

fn any_tpdu() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let interesting = prop_oneof![
        Just(0x00u8),
        0x00..0x40u8,
        Just(0x90),
        0x90..0xA0u8,
        0xA0..0xAAu8,
        0xB0..0xC0u8,
        any::<u8>(),
    ];
    (interesting, proptest::collection::vec(any::<u8>(), 0..7))
}

proptest! {
    #[test]
    fn an_encoded_frame_decodes_to_the_same(
        wants_ack: bool, is_last: bool, sequence in 0u8..16,
        data in proptest::collection::vec(any::<u8>(), 0..=7),
        raw: [u8; 5], ready: bool,
    ) {
        let parameters = Parameters {
            block_size: raw[0], t1: TimeByte(raw[1]), t2: TimeByte(raw[2]), t3: TimeByte(raw[3]), t4: TimeByte(raw[4]),
        };
        for tpdu in [
            Tpdu::Data { wants_ack, is_last, sequence, data: &data },
            Tpdu::Ack { ready, sequence },
            Tpdu::ParametersRequest(parameters),
            Tpdu::ParametersResponse(Some(parameters)),
            Tpdu::ParametersResponse(None),
            Tpdu::ChannelTest,
            Tpdu::Break,
            Tpdu::Disconnect,
        ] {
            let written = tpdu.encode(SETUP_ID).unwrap();
            prop_assert_eq!(Tpdu::decode(written.data()), Ok(tpdu));
        }
    }

    #[test]
    fn encoded_set_up_messages_decode_to_the_same(
        destination: u8, code in 0xD0u8..=0xDF, receive in proptest::option::of(0u32..0x800),
        transmit in proptest::option::of(0u32..0x800), application_type: u8,
    ) {
        let opcode = match code {
            0xD0 => SetupOpcode::Positive,
            0xD6 => SetupOpcode::Negative(Refusal::ApplicationType),
            0xD7 => SetupOpcode::Negative(Refusal::ApplicationTypeNow),
            0xD8 => SetupOpcode::Negative(Refusal::Resources),
            code => SetupOpcode::Negative(Refusal::Other(code)),
        };
        let message = SetupMessage {
            destination, opcode, application_type,
            receive: receive.map(CanId::standard_truncated), transmit: transmit.map(CanId::standard_truncated),
        };
        let written = message.encode(SETUP_ID).unwrap();
        prop_assert_eq!(SetupMessage::decode(written.data()), Some(message));
    }

    /// After any frames in any order, the channel has a next deadline or is idle.
    #[test]
    fn no_sequence_of_frames_breaks_a_channel(
        steps in proptest::collection::vec((0u8..8, any_tpdu(), 0u64..400), 0..120),
    ) {
        let mut now = Instant::now();
        let mut channel = Channel::new(ChannelConfig::new(1.try_into().unwrap(), 0));
        for (step, (first, rest), millis) in steps {
            match step {
                0 => drop(channel.send(now, &vec![first; rest.len() * 20 + 1])),
                1 => {
                    let mut data = vec![0, 0xD0, 0, 3, 0x40, 7, 1];
                    data[1] = if first & 1 == 0 { 0xD0 } else { 0xD0 | first & 0x0F };
                    channel.handle_frame(now, &frame(0x201, &data));
                }
                2 if first == 0 => channel.handle_transmit_failed(now, CloseReason::BusOff),
                2 if first == 1 => channel.close(now),
                2 if first == 2 => channel.abort_send(),
                _ => {
                    let mut data = vec![first];
                    data.extend(rest);
                    channel.handle_frame(now, &frame(0x300, &data));
                }
            }
            for _ in 0..3 {
                if channel.poll_transmit(now).is_some() {
                    channel.handle_transmitted(now);
                }
            }
            while channel.poll_event().is_some() {}
            now += Duration::from_millis(millis);
            for _ in 0..3 {
                if channel.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    channel.handle_timeout(now);
                }
            }
            let goes_on = channel.poll_timeout().is_some() || channel.poll_transmit(now).is_some_and(|_| {
                channel.handle_transmitted(now);
                true
            });
            prop_assert!(goes_on || !channel.is_sending());
            let (memory, in_flight, events) = channel.load();
            prop_assert!(memory <= 2 * (MAX_PDU + 9) && in_flight <= 33 && events <= 12);
        }
    }
}
