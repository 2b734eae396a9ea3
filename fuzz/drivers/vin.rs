//! Reads any bytes as an answer to a request for the VIN, as a VIN, and as the actions of a bus on a VIN
//! reader.

use std::time::{Duration, Instant};

use connector_agent::protocol::vin::Vin;
use connector_agent::vehicle::vin::{ReaderSettings, VinAnswer, VinReader};
use connector_hal::bus::BusState;
use connector_hal::can::{CanFrame, CanId};

/// Identifiers that may answer, and others that may not.
const IDS: [u32; 8] = [0x7E8, 0x7EF, 0x18DA_F110, 0x18DA_F10E, 0x768, 0x64B, 0x79A, 0x123];
/// The most frames that any vehicle gets.
const MAX_FRAMES: usize = 64;

pub(super) fn drive(data: &[u8]) {
    if let VinAnswer::Vin(_, vin) = VinAnswer::parse(data) {
        assert_eq!(vin.as_str().parse::<Vin>(), Ok(vin), "a reported VIN is valid");
    }
    if let Ok(vin) = Vin::try_from(data) {
        let _ = vin.has_valid_check_digit();
        // small letters are read as capitals
        assert_eq!(vin.as_str().as_bytes(), data.to_ascii_uppercase());
    }
    drive_reader(data);
}

/// Each step is a byte, and after it the data if the step is a frame.
fn drive_reader(data: &[u8]) {
    let start = Instant::now();
    let mut now = start;
    let until = start + Duration::from_millis(1500);
    let (alive, shares_bus) = (data.len().is_multiple_of(2), data.len().is_multiple_of(3));
    let settings = ReaderSettings { until, alive, confirms_transmission: true, shares_bus };
    let mut reader = VinReader::new(settings);
    let mut frames = 0;
    let mut rest = data;
    while let Some((step, after)) = rest.split_first() {
        rest = after;
        match step >> 5 {
            0..=3 => {
                let (bytes, after) = rest.split_at(rest.len().min(usize::from(step >> 3 & 7) + 1));
                rest = after;
                let id = CanId::try_from(IDS[usize::from(step & 7)]).expect("an identifier");
                reader.handle_frame(now, &CanFrame::new(id, bytes).expect("at most 8 bytes"));
            }
            4 => reader.handle_transmitted(now),
            5 => match step & 3 {
                0 => reader.handle_transmit_failed(now),
                1 => reader.handle_frame(now, &CanFrame::new_error(0x8, [0; 8])),
                2 => reader.handle_bus_state(now, BusState::Passive),
                _ => reader.handle_bus_state(now, BusState::Off),
            },
            _ => now += Duration::from_millis(u64::from(step & 0x3F)),
        }
        if reader.poll_timeout().is_some_and(|(at, _)| at <= now) {
            reader.handle_timeout(now);
        }
        while reader.poll_transmit(now).is_some() {
            frames += 1;
        }
        while reader.poll_event().is_some() {}
        assert!(frames <= MAX_FRAMES, "the reader sent {frames} frames");
    }
    for _ in 0..10_000 {
        let Some((at, _)) = reader.poll_timeout() else { return };
        now = now.max(at);
        reader.handle_timeout(now);
        while reader.poll_transmit(now).is_some() {}
        while reader.poll_event().is_some() {}
    }
    panic!("the reader does not end, {:?} after its start", now - start);
}
