//! Messages: header, data and checksum (ISO 14230-2, 4).

/// Longest data of a message, in bytes.
pub(super) const MAX_DATA: usize = 255;
/// Longest data that the format byte can count, in bytes.
const MAX_SHORT_DATA: usize = 63;

const MODE_MASK: u8 = 0xC0;
const LENGTH_MASK: u8 = 0x3F;
const MODE_NONE: u8 = 0x00;
const MODE_CARB: u8 = 0x40;
const MODE_PHYSICAL: u8 = 0x80;
const MODE_FUNCTIONAL: u8 = 0xC0;

/// The kind of target of a message with addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressMode {
    /// One node.
    Physical,
    /// Every node with that function.
    Functional,
}

/// The place of the length in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LengthForm {
    /// The format byte, for up to 63 bytes.
    InFormatByte,
    /// A separate length byte.
    Additional,
    /// The format byte for up to 63 bytes, otherwise a separate byte.
    Either,
}

/// The form of a message's header: one to four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderForm {
    /// The mode of the target address; `None` for a header without addresses.
    pub mode: Option<AddressMode>,
    /// The place of the length.
    pub length: LengthForm,
}

impl HeaderForm {
    /// The header of StartCommunication, before the ECU's key bytes are known.
    pub const START_COMMUNICATION: Self =
        Self { mode: Some(AddressMode::Physical), length: LengthForm::InFormatByte };

    /// Returns the longest data of a message with this header, in bytes.
    pub fn max_data(self) -> usize {
        match self.length {
            LengthForm::InFormatByte => MAX_SHORT_DATA,
            LengthForm::Additional | LengthForm::Either => MAX_DATA,
        }
    }
}

/// A message without data, or with more than its header can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message to this ECU has 1 to {max} data bytes, not {len}")]
pub struct TooLong {
    /// Number of data bytes.
    pub len: usize,
    /// Longest data allowed, in bytes.
    pub max: usize,
}

/// A complete message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Address mode, target and source, if the header contains addresses.
    pub addresses: Option<(AddressMode, u8, u8)>,
    /// The service and its parameters; at least one byte.
    pub data: Vec<u8>,
}

impl Message {
    /// Returns the target address.
    pub fn target(&self) -> Option<u8> {
        self.addresses.map(|(_, target, _)| target)
    }

    /// Returns the source address.
    pub fn source(&self) -> Option<u8> {
        self.addresses.map(|(_, _, source)| source)
    }
}

/// The reason why bytes are not a message. All bytes until the line is silent belong to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The checksum is wrong: a byte was lost or disturbed.
    #[error("the checksum is 0x{found:02X} instead of 0x{computed:02X}")]
    Checksum {
        /// The received checksum.
        found: u8,
        /// The checksum of the received bytes.
        computed: u8,
    },
    /// The header is that of ISO 9141-2, which does not contain the length of the message.
    #[error("the format byte 0x{0:02X} is not of ISO 14230")]
    Format(u8),
    /// The separate length byte is zero.
    #[error("the length is 0")]
    Empty,
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Encodes a message, including its checksum.
///
/// # Errors
///
/// `data` is empty, or too long for the header.
pub fn encode(form: HeaderForm, target: u8, source: u8, data: &[u8]) -> Result<Vec<u8>, TooLong> {
    let too_long = TooLong { len: data.len(), max: form.max_data() };
    let len = u8::try_from(data.len()).map_err(|_| too_long)?;
    if len == 0 || data.len() > form.max_data() {
        return Err(too_long);
    }
    let is_additional = match form.length {
        LengthForm::InFormatByte => false,
        LengthForm::Additional => true,
        LengthForm::Either => data.len() > MAX_SHORT_DATA,
    };
    let mode = match form.mode {
        None => MODE_NONE,
        Some(AddressMode::Physical) => MODE_PHYSICAL,
        Some(AddressMode::Functional) => MODE_FUNCTIONAL,
    };
    let mut bytes = Vec::with_capacity(data.len() + 5);
    bytes.push(if is_additional { mode } else { mode | len });
    if form.mode.is_some() {
        bytes.extend([target, source]);
    }
    if is_additional {
        bytes.push(len);
    }
    bytes.extend_from_slice(data);
    bytes.push(checksum(&bytes));
    Ok(bytes)
}

/// Decodes messages from single bytes. A decoder buffers at most 260 bytes.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Discards an incomplete message.
    pub fn reset(&mut self) {
        self.bytes.clear();
    }

    /// Takes a byte, and returns the message that the byte completes.
    ///
    /// # Errors
    ///
    /// The bytes are not a message. After a message or an error, the next byte begins another message.
    pub fn push(&mut self, byte: u8) -> Option<Result<Message, MessageError>> {
        self.bytes.push(byte);
        let result = parse(&self.bytes).transpose()?;
        self.bytes.clear();
        Some(result.map(|(message, _)| message))
    }
}

/// Returns the message at the beginning of `bytes` and its length, or `None` if more bytes are needed.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, MessageError> {
    let Some((&format, rest)) = bytes.split_first() else { return Ok(None) };
    let (addresses, rest) = match (format & MODE_MASK, rest) {
        (MODE_CARB, _) => return Err(MessageError::Format(format)),
        (MODE_NONE, rest) => (None, rest),
        (mode, [target, source, rest @ ..]) => {
            let mode = if mode == MODE_FUNCTIONAL { AddressMode::Functional } else { AddressMode::Physical };
            (Some((mode, *target, *source)), rest)
        }
        _ => return Ok(None),
    };
    let (len, rest) = match (format & LENGTH_MASK, rest) {
        (0, []) => return Ok(None),
        (0, [0, ..]) => return Err(MessageError::Empty),
        (0, [len, rest @ ..]) => (*len, rest),
        (len, rest) => (len, rest),
    };
    let Some((data, [found, behind @ ..])) = rest.split_at_checked(usize::from(len)) else { return Ok(None) };
    let total = bytes.len() - behind.len();
    let computed = checksum(bytes.get(..total - 1).unwrap_or_default());
    if *found != computed {
        return Err(MessageError::Checksum { found: *found, computed });
    }
    Ok(Some((Message { addresses, data: data.to_vec() }, total)))
}

/// Returns whether `bytes` can be the beginning of a message to `tester` from another node.
pub(super) fn begins_message_to(tester: u8, bytes: &[u8]) -> bool {
    let [format, addresses @ ..] = bytes else { return false };
    let mode = format & MODE_MASK;
    let has_target = addresses.first().is_none_or(|target| *target == tester);
    let has_source = addresses.get(1).is_none_or(|source| *source != tester);
    (mode == MODE_PHYSICAL || mode == MODE_FUNCTIONAL) && has_target && has_source
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Vec<Result<Message, MessageError>> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|byte| decoder.push(*byte)).collect()
    }

    #[test]
    fn well_known_messages_match_those_of_other_testers() {
        // StartCommunication of OBD testers, and an ECU's answer to it
        let functional = HeaderForm { mode: Some(AddressMode::Functional), length: LengthForm::InFormatByte };
        assert_eq!(encode(functional, 0x33, 0xF1, &[0x81]).unwrap(), [0xC1, 0x33, 0xF1, 0x81, 0x66]);
        assert_eq!(
            encode(HeaderForm::START_COMMUNICATION, 0x11, 0xF1, &[0x81]).unwrap(),
            [0x81, 0x11, 0xF1, 0x81, 0x04]
        );
        let answer = decode(&[0x83, 0xF1, 0x11, 0xC1, 0xEF, 0x8F, 0xC4]);
        let expected =
            Message { addresses: Some((AddressMode::Physical, 0xF1, 0x11)), data: vec![0xC1, 0xEF, 0x8F] };
        assert_eq!(answer, [Ok(expected)]);
    }

    #[test]
    fn headers_have_one_to_four_bytes() {
        for (mode, length, header) in [
            (None, LengthForm::InFormatByte, &[0x02][..]),
            (None, LengthForm::Additional, &[0x00, 0x02]),
            (Some(AddressMode::Physical), LengthForm::InFormatByte, &[0x82, 0x11, 0xF1]),
            (Some(AddressMode::Physical), LengthForm::Additional, &[0x80, 0x11, 0xF1, 0x02]),
        ] {
            let bytes = encode(HeaderForm { mode, length }, 0x11, 0xF1, &[0x1A, 0x90]).unwrap();
            assert_eq!(bytes.strip_prefix(header).map(|rest| rest.len()), Some(3), "{bytes:02X?}");
        }
    }

    #[test]
    fn data_that_is_too_long_for_the_header_is_refused() {
        let form = |length| HeaderForm { mode: None, length };
        assert!(encode(form(LengthForm::InFormatByte), 0, 0, &[0; 63]).is_ok());
        assert_eq!(encode(form(LengthForm::InFormatByte), 0, 0, &[0; 64]), Err(TooLong { len: 64, max: 63 }));
        assert_eq!(encode(form(LengthForm::Either), 0, 0, &[0; 64]).unwrap()[..2], [0x00, 64]);
        assert!(encode(form(LengthForm::Either), 0, 0, &[0; 255]).is_ok());
        assert!(encode(form(LengthForm::Either), 0, 0, &[0; 256]).is_err());
        assert!(encode(form(LengthForm::Either), 0, 0, &[]).is_err());
    }

    #[test]
    fn a_disturbed_message_is_reported_and_the_next_byte_begins_another() {
        let good = [0x81, 0xF1, 0x11, 0x7E, 0x01];
        let results = decode(&[&[0x81, 0xF1, 0x11, 0x7F, 0x01], &good[..]].concat());
        assert_eq!(results[0], Err(MessageError::Checksum { found: 0x01, computed: 0x02 }));
        assert!(results[1].is_ok());
        assert_eq!(decode(&[0x48]), [Err(MessageError::Format(0x48))]);
        assert_eq!(decode(&[0x00, 0x00]), [Err(MessageError::Empty)]);
    }

    proptest! {
        #[test]
        fn an_encoded_message_decodes_to_the_same(
            mode in prop_oneof![Just(None), Just(Some(AddressMode::Physical)), Just(Some(AddressMode::Functional))],
            length in prop_oneof![Just(LengthForm::Either), Just(LengthForm::Additional)],
            target: u8,
            source: u8,
            data in proptest::collection::vec(any::<u8>(), 1..=MAX_DATA),
        ) {
            let bytes = encode(HeaderForm { mode, length }, target, source, &data).unwrap();
            let addresses = mode.map(|mode| (mode, target, source));
            prop_assert_eq!(decode(&bytes), [Ok(Message { addresses, data })]);
        }

        #[test]
        fn any_bytes_use_little_memory(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            for byte in bytes {
                let _ = decoder.push(byte);
                prop_assert!(decoder.bytes.len() <= 260);
            }
        }
    }
}
