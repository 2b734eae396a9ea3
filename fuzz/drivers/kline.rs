//! Reads any bytes as those of a K-line: with the decoder, and as the bytes that a tester receives during
//! set-up and use.

use std::time::{Duration, Instant};

use connector_agent::protocol::kline::{
    Addressing, Config, Decoder, Endpoint, HeaderForm, Initialisation, LengthForm, LineClock, encode,
};

/// Encoding and decoding a message again gives the same message. No bytes stop an endpoint or make it spin.
pub(super) fn drive(data: &[u8]) {
    let mut decoder = Decoder::default();
    for byte in data {
        let Some(Ok(message)) = decoder.push(*byte) else { continue };
        let mode = message.addresses.map(|(mode, _, _)| mode);
        let (target, source) = message.target().zip(message.source()).unwrap_or_default();
        let form = HeaderForm { mode, length: LengthForm::Either };
        let bytes = encode(form, target, source, &message.data).expect("a decoded message can be encoded");
        let mut again = Decoder::default();
        let read = bytes.iter().find_map(|byte| again.push(*byte));
        assert_eq!(read, Some(Ok(message)));
    }
    let Some((&first, rest)) = data.split_first() else { return };
    let initialisation = if first & 1 == 0 { Initialisation::Fast } else { Initialisation::Slow };
    listen(initialisation, first & 2 == 0, rest);
}

/// Drives an endpoint, with or without echoes of its bytes. Each turn takes a pause and a received byte from
/// the data.
fn listen(initialisation: Initialisation, echoes: bool, data: &[u8]) {
    let mut now = Instant::now();
    let mut endpoint = Endpoint::new(Config::new(Addressing::of(0x11), initialisation, 10_400), now);
    let mut line = LineClock::new(now);
    let _ = endpoint.send(&[0x1A, 0x90]);
    for turn in data.chunks(2) {
        if endpoint.wants_line().is_some_and(|at| at <= now) {
            endpoint.start(now, &line);
        }
        let mut turns = 0;
        while let Some(signal) = endpoint.poll_transmit() {
            line.handle_activity(now);
            match signal {
                connector_hal::kline::Signal::Byte(byte) if echoes => endpoint.handle_byte(now, byte),
                connector_hal::kline::Signal::Byte(_) => {}
                _ => endpoint.handle_sent(now),
            }
            turns += 1;
            assert!(turns < 300, "the endpoint never stops sending");
        }
        let [pause, byte] = turn else { break };
        now += Duration::from_millis(u64::from(*pause));
        let mut timeouts = 0;
        while endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            endpoint.handle_timeout(now);
            let _ = endpoint.poll_transmit();
            timeouts += 1;
            assert!(timeouts < 300, "a deadline stays due");
        }
        endpoint.handle_byte(now, *byte);
        let mut events = 0;
        while endpoint.poll_event().is_some() {
            events += 1;
            assert!(events < 300, "the endpoint never stops reporting events");
        }
        if !endpoint.is_sending() {
            let _ = endpoint.send(&[0x21, *byte]);
        }
    }
}
