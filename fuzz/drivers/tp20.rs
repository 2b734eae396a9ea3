//! Reads any bytes as a script: the actions of a bus, an ECU and a clock on a TP2.0 channel.

use std::time::{Duration, Instant};

use connector_agent::protocol::tp20::{Channel, ChannelConfig, CloseReason, SetupMessage, TimeByte, Tpdu};
use connector_hal::can::{CanFrame, CanId};

/// The identifier on which the script's ECU listens after the channel set-up, as in the ECU's answer.
const ECU_LISTENS: [u8; 2] = [0x40, 0x07];

/// The first two bytes configure the channel. The others are the script.
pub(super) fn drive(data: &[u8]) {
    let Some((&[t3, index], script)) = data.split_first_chunk() else { return };
    let mut config = ChannelConfig::new(1.try_into().expect("an address"), index);
    config.parameters.t3 = TimeByte(t3);
    let mut channel = Channel::new(config);
    let mut script = script.iter().copied();
    let mut now = Instant::now();
    while let Some(step) = script.next() {
        let argument = step & 0x1F;
        match step >> 5 {
            // a frame from the ECU
            0 | 1 => {
                let data: Vec<u8> = script.by_ref().take(usize::from(argument & 7) + 1).collect();
                let _ = Tpdu::decode(&data);
                channel.handle_frame(now, &frame(channel.receive_id(), &data));
            }
            // an answer to the channel set-up: positive, or any bytes
            2 if argument == 0 => {
                let [low, high] = ECU_LISTENS;
                channel.handle_frame(now, &frame(id(0x201), &[0, 0xD0, 0, 3, low, high, 1]));
            }
            2 => {
                let data: Vec<u8> = script.by_ref().take(7).collect();
                let _ = SetupMessage::decode(&data);
                channel.handle_frame(now, &frame(id(0x201), &data));
            }
            3 => channel.handle_transmitted(now),
            4 => {
                let failures = [CloseReason::BusOff, CloseReason::NotAcknowledged];
                channel.handle_transmit_failed(now, failures[usize::from(argument) % 2]);
            }
            5 => {
                now += Duration::from_millis(u64::from(argument) * 25);
                channel.handle_timeout(now);
                assert!(channel.poll_timeout().is_none_or(|(at, _)| at > now), "no timer fires twice");
            }
            6 => {
                let _ = channel.send(now, &vec![argument; usize::from(argument) * 30]);
            }
            _ => match argument % 3 {
                0 => channel.open(),
                1 => channel.close(now),
                _ => channel.abort_send(),
            },
        }
        if argument & 1 == 0 {
            let mut frames = 0;
            while let Some(frame) = channel.poll_transmit(now) {
                let is_setup = frame.id() == id(0x200);
                let is_well_formed = if is_setup {
                    SetupMessage::decode(frame.data()).is_some()
                } else {
                    Tpdu::decode(frame.data()).is_ok()
                };
                assert!(is_well_formed, "{frame}");
                frames += 1;
            }
            assert!(frames <= 40, "{frames} frames after one step");
            let events = std::iter::from_fn(|| channel.poll_event()).count();
            assert!(events <= 16, "{events} events after one step");
        }
    }
}

fn id(number: u32) -> CanId {
    CanId::standard_truncated(number)
}

fn frame(id: CanId, data: &[u8]) -> CanFrame {
    CanFrame::new(id, data.get(..8).unwrap_or(data)).expect("at most 8 bytes")
}
