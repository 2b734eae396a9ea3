//! What frames say to a scan.

/// What an ECU answers to TesterPresent.
pub(super) fn is_tester_present_answer(data: &[u8]) -> bool {
    // a single frame (ISO 15765-2): the response, or a refusal of any kind
    matches!(data, [1 | 2, 0x7E, ..] | [3, 0x7F, 0x3E, _, ..])
}

/// The speed of an OBD answer to PID 0D, in km/h.
pub(super) fn speed(data: &[u8]) -> Option<u8> {
    match data {
        [3, 0x41, 0x0D, speed, ..] => Some(*speed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_everything_else() {
        for answer in
            [&[2, 0x7E, 0, 0xAA, 0xAA][..], &[1, 0x7E], &[3, 0x7F, 0x3E, 0x12], &[3, 0x7F, 0x3E, 0x78]]
        {
            assert!(is_tester_present_answer(answer), "{answer:02X?}");
        }
        for other in [
            &[][..],
            &[2, 0x3E, 0],
            &[3, 0x7E, 0, 0],
            &[3, 0x7F, 0x10, 0x12],
            &[3, 0x7F, 0x3E],
            &[0x10, 8, 0x7E, 0],
            &[0x7E, 0],
        ] {
            assert!(!is_tester_present_answer(other), "{other:02X?}");
        }
        assert_eq!(speed(&[3, 0x41, 0x0D, 17, 0]), Some(17));
        assert_eq!(speed(&[4, 0x41, 0x0C, 17, 0]), None);
    }
}
