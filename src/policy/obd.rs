//! The speeds of vehicle and engine as OBD (SAE J1979) and OBD on UDS (SAE J1979-2) report them.

use connector_hal::can::CanId;

use super::facts::AskedSource;

/// The positive responses to OBD's service 01, and to ReadDataByIdentifier with the identifiers of its PIDs.
const CURRENT_DATA: u8 = 0x41;
const DATA_BY_IDENTIFIER: [u8; 2] = [0x62, 0xF4];
/// The PIDs of the engine's speed and of the vehicle's.
const ENGINE_SPEED: u8 = 0x0C;
const VEHICLE_SPEED: u8 = 0x0D;

/// What a response reports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reported {
    /// The vehicle's speed in km/h.
    Speed(AskedSource, f32),
    /// The engine's speed in revolutions per minute.
    Engine(f32),
}

/// Returns what the response reports, if it is about one of the two speeds.
pub(super) fn reported(response: &[u8]) -> Option<Reported> {
    let (source, pid, data) = match response {
        [CURRENT_DATA, pid, data @ ..] => (AskedSource::Obd, *pid, data),
        [first, second, pid, data @ ..] if [*first, *second] == DATA_BY_IDENTIFIER => {
            (AskedSource::Doip, *pid, data)
        }
        _ => return None,
    };
    match (pid, data) {
        (VEHICLE_SPEED, [kmh, ..]) => Some(Reported::Speed(source, f32::from(*kmh))),
        // a quarter of a revolution a minute
        (ENGINE_SPEED, [high, low, ..]) => {
            Some(Reported::Engine(f32::from(u16::from_be_bytes([*high, *low])) / 4.0))
        }
        _ => None,
    }
}

/// Whether the identifier is one of responses by ISO 15765-4.
pub(super) fn is_answer_id(id: CanId) -> bool {
    match id.is_extended() {
        false => (0x7E8..=0x7EF).contains(&id.raw()),
        true => id.raw() >> 8 == 0x18_DAF1,
    }
}

/// Whether a response belongs to the question for the vehicle's speed: the speed, or a negative response to service 01.
pub(super) fn is_answer(response: &[u8]) -> bool {
    matches!(response, [CURRENT_DATA, VEHICLE_SPEED, ..] | [0x7F, 0x01, ..])
}

/// The PDU of a single frame with normal addressing; empty if the frame is none.
pub(super) fn single_frame(data: &[u8]) -> &[u8] {
    match data.split_first() {
        Some((length @ 1..=7, rest)) => rest.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    }
}
