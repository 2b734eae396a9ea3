//! Parsing requests and writing answers (ISO 14230-2, 4).

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Whether the target is functional, the target and the source.
    pub(super) addresses: Option<(bool, u8, u8)>,
    /// Whether the length is in a separate byte.
    pub(super) has_length_byte: bool,
    pub(super) data: Vec<u8>,
}

/// The total length of the message, as soon as it is known.
fn total(bytes: &[u8]) -> Option<usize> {
    let format = usize::from(*bytes.first()?);
    let header = if format >> 6 == 0 { 1 } else { 3 };
    match format & 0x3F {
        0 => Some(header + 1 + usize::from(*bytes.get(header)?) + 1),
        len => Some(header + len + 1),
    }
}

/// Parses a request as soon as its last byte is there. `Err` means a wrong checksum or header.
pub(super) fn read(bytes: &[u8]) -> Option<Result<Request, ()>> {
    let total = total(bytes)?;
    let (checksum, before) = bytes.get(..total)?.split_last()?;
    let sum = before.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 256;
    let format = *before.first()?;
    let has_length_byte = format & 0x3F == 0;
    let addresses = match (format >> 6, before) {
        (0, _) => None,
        (mode, [_, target, source, ..]) => Some((mode == 3, *target, *source)),
        _ => return Some(Err(())),
    };
    let start = 1 + if addresses.is_some() { 2 } else { 0 } + usize::from(has_length_byte);
    let data = before.get(start..)?.to_vec();
    if sum != u32::from(*checksum) || data.is_empty() || format >> 6 == 1 {
        return Some(Err(()));
    }
    Some(Ok(Request { addresses, has_length_byte, data }))
}

/// Writes an answer of at most 255 bytes to the tester.
pub(super) fn write(addresses: Option<(u8, u8)>, length_byte: bool, data: &[u8]) -> Vec<u8> {
    let mode = if addresses.is_some() { 0x80 } else { 0x00 };
    let is_long = length_byte || data.len() > 0x3F;
    let mut bytes = vec![if is_long { mode } else { mode | data.len() as u8 }];
    if let Some((target, source)) = addresses {
        bytes.extend([target, source]);
    }
    if is_long {
        bytes.push(data.len() as u8);
    }
    bytes.extend_from_slice(data);
    bytes.push(bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_literature_are_decoded_and_encoded() {
        let request = read(&[0xC1, 0x33, 0xF1, 0x81, 0x66]).unwrap().unwrap();
        assert_eq!(request.addresses, Some((true, 0x33, 0xF1)));
        assert_eq!(request.data, [0x81]);
        assert_eq!(read(&[0xC1, 0x33, 0xF1, 0x81]), None);
        assert_eq!(read(&[0xC1, 0x33, 0xF1, 0x81, 0x67]), Some(Err(())));
        assert_eq!(
            write(Some((0xF1, 0x11)), false, &[0xC1, 0xEF, 0x8F]),
            [0x83, 0xF1, 0x11, 0xC1, 0xEF, 0x8F, 0xC4]
        );
        assert_eq!(write(None, true, &[0x7E]), [0x00, 0x01, 0x7E, 0x7F]);
    }
}
