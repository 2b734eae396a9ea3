//! Reads any bytes as a script: the actions of a bus, a peer and a clock on ISO-TP endpoints.

use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{
    Addressing, Config, Endpoint, FrameSize, FunctionalConfig, FunctionalEndpoint, NPdu, Padding, Responders,
    SendFailure, SeparationTime,
};
use connector_hal::can::{CanFrame, CanId, FdFlags, fd_length};

/// The first four bytes configure an endpoint. The others are the script.
pub(super) fn drive(data: &[u8]) {
    let Some((&[kind, padding, block_size, st_min], script)) = data.split_first_chunk() else { return };
    let padding = match padding % 3 {
        0 => Padding::Enabled(padding),
        1 => Padding::Disabled,
        _ => Padding::Detection(padding),
    };
    let frame_size = match kind & 0x0F {
        0 => FrameSize::Classic,
        n => FrameSize::Fd { tx_dl: n * 8, bit_rate_switch: true },
    };
    let st_min = SeparationTime(st_min);
    let address_byte = (kind & 0x40 != 0).then_some(0xF1);
    if kind & 0x80 == 0 {
        let (transmit, receive) = (id(0), CanId::extended_truncated(0x18DA_F100));
        let addressing = match address_byte {
            None => Addressing::normal(transmit, receive),
            Some(byte) => Addressing::extended(transmit, receive, 0x10, byte),
        };
        let config =
            Config { padding, frame_size, block_size, st_min, max_pdu: 5000, ..Config::new(addressing) };
        let mut endpoint = Endpoint::new(config);
        run!(endpoint, script, address_byte);
    } else {
        let config = FunctionalConfig {
            padding,
            frame_size,
            block_size,
            st_min,
            transmit_address: address_byte,
            receive_address: address_byte,
            max_receptions: 4,
            ..FunctionalConfig::new(id(0), Responders::Obd29)
        };
        let mut endpoint = FunctionalEndpoint::new(config);
        run!(endpoint, script, address_byte);
    }
}

/// Plays the script, and asserts the invariants of endpoints after each step.
macro_rules! run {
    ($endpoint:expr, $script:expr, $address_byte:expr) => {
        let mut script = $script.iter().copied();
        let mut now = Instant::now();
        while let Some(step) = script.next() {
            let argument = step & 0x1F;
            match step >> 5 {
                0..=2 => {
                    let data: Vec<u8> =
                        $address_byte.into_iter().chain(script.by_ref().take(argument.into())).collect();
                    let address = id(step >> 5);
                    let _ = NPdu::decode(&data, usize::from($address_byte.is_some()));
                    $endpoint.handle_frame(now, &frame(address, &data));
                }
                3 => $endpoint.handle_transmitted(now),
                4 => {
                    let failures = [SendFailure::BusOff, SendFailure::NotAcknowledged];
                    let failure = failures[usize::from(argument) % 2];
                    $endpoint.handle_transmit_failed(now, failure);
                }
                5 => {
                    now += Duration::from_millis(u64::from(argument) * 100);
                    $endpoint.handle_timeout(now);
                    assert!($endpoint.poll_timeout().is_none_or(|(at, _)| at > now), "no timer fires twice");
                }
                6 => {
                    let _ = $endpoint.send(now, &vec![argument; usize::from(argument) * 30]);
                }
                _ => $endpoint.abort_send(),
            }
            if argument & 1 == 0 {
                let mut frames = 0;
                while let Some(frame) = $endpoint.poll_transmit(now) {
                    let address_bytes = usize::from($address_byte.is_some());
                    assert!(NPdu::decode(frame.data(), address_bytes).is_ok(), "{frame} is well-formed");
                    frames += 1;
                }
                assert!(frames <= 40, "{frames} frames after one step");
                let events = std::iter::from_fn(|| $endpoint.poll_event()).count();
                assert!(events <= 40, "{events} events after one step");
            }
        }
    };
}
use run;

fn id(number: u8) -> CanId {
    CanId::extended_truncated(0x18DA_F100 + u32::from(number))
}

fn frame(id: CanId, data: &[u8]) -> CanFrame {
    let mut padded = data.to_vec();
    let made = if data.len() <= 8 {
        CanFrame::new(id, &padded)
    } else {
        padded.resize(fd_length(data.len()).expect("at most 33 bytes"), 0);
        CanFrame::new_fd(id, FdFlags::default(), &padded)
    };
    made.expect("a valid length")
}
