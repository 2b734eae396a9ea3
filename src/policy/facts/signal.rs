//! A number in the data of a CAN frame.

use crate::policy::settings::{ByteOrder, SpeedSignal};

/// Returns the signal's value in km/h. Returns `None` if the frame is too short, or all bits are set, which signals use
/// for "not available" (SAE J1939-71, 5.1.5).
pub(super) fn kmh(signal: &SpeedSignal, data: &[u8]) -> Option<f32> {
    let bits = u32::from(signal.bits);
    if !(1..=32).contains(&bits) {
        return None;
    }
    let mut raw: u32 = 0;
    for position in 0..bits {
        let at = u32::from(signal.start) + position;
        let byte = data.get(usize::try_from(at / 8).ok()?)?;
        match signal.order {
            ByteOrder::Big => raw = raw << 1 | u32::from(byte >> (7 - at % 8) & 1),
            ByteOrder::Little => raw |= u32::from(byte >> (at % 8) & 1) << position,
        }
    }
    let not_available = u32::MAX >> (32 - bits);
    #[expect(clippy::cast_precision_loss, reason = "a speed needs no more than 24 bits")]
    let value = raw as f32;
    (raw != not_available || bits == 1).then(|| value.mul_add(signal.scale, signal.offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(start: u16, bits: u8, scale: f32, order: ByteOrder) -> SpeedSignal {
        SpeedSignal { bus: String::new(), id: 0x3E9, start, bits, scale, offset: 0.0, order }
    }

    #[test]
    fn signals_are_read_in_both_byte_orders() {
        let data = [0x00, 0x12, 0x34, 0xF0];
        assert_eq!(kmh(&signal(8, 16, 0.01, ByteOrder::Big), &data), Some(4660.0 * 0.01));
        assert_eq!(kmh(&signal(8, 16, 0.01, ByteOrder::Little), &data), Some(13330.0 * 0.01));
        assert_eq!(kmh(&signal(12, 8, 1.0, ByteOrder::Big), &data), Some(f32::from(0x23_u8)));
        assert_eq!(kmh(&signal(12, 8, 1.0, ByteOrder::Little), &data), Some(f32::from(0x41_u8)));
    }

    #[test]
    fn an_offset_is_added() {
        let signal = SpeedSignal { offset: -40.0, ..signal(0, 8, 0.5, ByteOrder::Big) };
        assert_eq!(kmh(&signal, &[100]), Some(10.0));
    }

    #[test]
    fn a_frame_too_short_and_a_value_not_available_have_no_speed() {
        assert_eq!(kmh(&signal(8, 16, 1.0, ByteOrder::Big), &[0, 1]), None);
        assert_eq!(kmh(&signal(0, 16, 1.0, ByteOrder::Big), &[0xFF, 0xFF]), None);
        assert_eq!(kmh(&signal(0, 0, 1.0, ByteOrder::Big), &[1]), None);
        assert_eq!(kmh(&signal(0, 33, 1.0, ByteOrder::Big), &[0; 8]), None);
    }
}
