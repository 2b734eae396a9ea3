use proptest::prelude::*;

use super::*;
use crate::protocol::doip::*;
use crate::protocol::vin::VinError;

/// An announcement of 32 bytes, as a gateway of the edition of 2012 sends it.
const ANNOUNCEMENT: &str = "02fd0004000000204241554e4545344d5a31373034323430334010001a37bfee74001a37bfee7400";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn decode_all(decoder: &mut StreamDecoder, bytes: &[u8]) -> Vec<Decoded> {
    decoder.handle_bytes(bytes);
    std::iter::from_fn(|| decoder.poll_message().unwrap()).collect()
}

fn message(payload: impl Into<Payload>) -> Message {
    Message::new(ProtocolVersion::V2012, payload)
}

#[test]
fn an_announcement_without_sync_status_is_understood_and_encoded_to_the_same_bytes() {
    let decoded = decode_datagram(&bytes(ANNOUNCEMENT)).unwrap();
    let Payload::Announcement(announcement) = &decoded.payload else { panic!("{decoded:?}") };
    assert_eq!(announcement.vin().unwrap().as_str(), "BAUNEE4MZ17042403");
    assert_eq!(announcement.address.to_string(), "0x4010");
    assert_eq!(announcement.eid.to_string(), "001A37BFEE74");
    assert_eq!(announcement.gid.unwrap().to_string(), "001A37BFEE74");
    assert_eq!(announcement.further_action, FurtherAction::None);
    assert_eq!(announcement.sync_status, None);
    assert_eq!(decoded.encode().unwrap(), bytes(ANNOUNCEMENT));
}

#[test]
fn a_vin_that_is_not_set_is_an_error_and_a_gid_that_is_not_set_is_none() {
    for filler in [0x00, 0xFF] {
        let mut datagram = bytes(ANNOUNCEMENT);
        datagram[8..25].fill(filler);
        datagram[33..39].fill(filler);
        let Payload::Announcement(announcement) = decode_datagram(&datagram).unwrap().payload else {
            panic!()
        };
        assert!(announcement.vin().is_err());
        assert_eq!(announcement.gid, None);
    }
}

#[test]
fn an_announced_placeholder_or_padding_is_not_a_vin() {
    let announced = |field: &[u8; 17]| {
        let mut datagram = bytes(ANNOUNCEMENT);
        datagram[8..25].copy_from_slice(field);
        let Payload::Announcement(announcement) = decode_datagram(&datagram).unwrap().payload else {
            panic!()
        };
        announcement.vin()
    };
    assert_eq!(announced(&[b'0'; 17]), Err(VinError::Placeholder));
    assert_eq!(announced(&[b'X'; 17]), Err(VinError::Placeholder));
    assert_eq!(announced(&[0; 17]), Err(VinError::Empty));
    for padding in [0xFF, b' '] {
        assert!(announced(&[padding; 17]).is_err(), "0x{padding:02X}");
    }
    assert_eq!(announced(b"AUNEE4MZ17042403\0"), Err(VinError::Length(16)));
}

#[test]
fn a_debug_print_of_an_announcement_hides_the_vin() {
    let printed = format!("{:?}", decode_datagram(&bytes(ANNOUNCEMENT)).unwrap());
    assert!(!printed.contains("BAUNEE4MZ17042403") && printed.contains("0x4010"), "{printed}");
}

#[test]
fn a_stream_split_into_bytes_decodes_to_the_same_messages() {
    let stream = bytes(
        "02fd0006000000090e804010100000000002fd80020000000540100e800002fd80010000000a40100e805003003201f4",
    );
    let at_once = decode_all(&mut StreamDecoder::new(64), &stream);
    assert_eq!(at_once.len(), 3);
    let mut decoder = StreamDecoder::new(64);
    let single: Vec<_> = stream.iter().flat_map(|byte| decode_all(&mut decoder, &[*byte])).collect();
    assert_eq!(single, at_once);
    assert_eq!(
        at_once[2],
        Decoded::Message(message(DiagnosticMessage {
            source: LogicalAddress::new(0x4010),
            target: LogicalAddress::new(0x0E80),
            data: vec![0x50, 0x03, 0x00, 0x32, 0x01, 0xF4],
        }))
    );
}

#[test]
fn a_length_of_4_gib_is_refused_by_its_header_without_buffering() {
    let mut decoder = StreamDecoder::new(1 << 20);
    let decoded = decode_all(&mut decoder, &bytes("02fd8001ffffffff"));
    assert_eq!(decoded, [Decoded::TooLarge { payload_type: 0x8001, length: u32::MAX }]);
    for _ in 0..64 {
        assert_eq!(decode_all(&mut decoder, &[0x55; 65536]), []);
        assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn the_message_after_a_too_long_one_is_decoded() {
    let mut decoder = StreamDecoder::new(8);
    let mut stream = bytes("02fd800100000009");
    stream.extend([0; 9]);
    stream.extend(bytes("02fd000700000000"));
    assert_eq!(
        decode_all(&mut decoder, &stream),
        [
            Decoded::TooLarge { payload_type: 0x8001, length: 9 },
            Decoded::Message(message(Payload::AliveCheckRequest))
        ]
    );
}

#[test]
fn an_invalid_message_is_a_permanent_error_that_names_the_reason() {
    for (stream, error, text) in [
        (
            "02fc000700000000",
            DecodeError::IncorrectPattern { version: 2, inverse: 0xFC },
            "the header begins with 0x02 0xFC, not a version and its inverse",
        ),
        ("00ff000700000000", DecodeError::UnknownVersion(0), "protocol version 0x00 is reserved"),
        (
            "ff00000700000000",
            DecodeError::UnknownVersion(0xFF),
            "protocol version 0xFF is for vehicle identification by UDP only",
        ),
        (
            // reported from the header, before the payload arrives
            "02fd000600000001",
            DecodeError::InvalidPayloadLength { payload_type: 6, length: 1 },
            "a payload of type 0x0006 cannot have 1 bytes",
        ),
    ] {
        let mut decoder = StreamDecoder::new(64);
        decoder.handle_bytes(&bytes(stream));
        assert_eq!(decoder.poll_message(), Err(error));
        assert_eq!(error.to_string(), text);
        decoder.handle_bytes(&bytes("02fd000700000000"));
        assert_eq!(decoder.poll_message(), Err(error));
        assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn a_datagram_is_one_message_and_nothing_else() {
    assert_eq!(decode_datagram(&[2, 0xFD]), Err(DecodeError::NoHeader(2)));
    for extra in ["02fd00070000000000", "02fd000700000001"] {
        let error = decode_datagram(&bytes(extra)).unwrap_err();
        assert!(matches!(error, DecodeError::DatagramLength { .. }), "{error:?}");
        assert_eq!(error.nack(), HeaderNackCode::InvalidPayloadLength);
    }
    let manufacturers = decode_datagram(&bytes("02fdf00100000002abcd")).unwrap();
    assert_eq!(manufacturers.payload, Payload::Other { payload_type: 0xF001, data: vec![0xAB, 0xCD] });
    assert_eq!(manufacturers.encode().unwrap(), bytes("02fdf00100000002abcd"));
}

#[test]
fn a_diagnostic_message_without_data_is_not_encoded() {
    let empty = DiagnosticMessage {
        source: LogicalAddress::new(0x0E80),
        target: LogicalAddress::new(0x4010),
        data: Vec::new(),
    };
    assert!(message(empty).encode().is_err());
}

fn any_payload() -> impl Strategy<Value = Payload> {
    let any_address = any::<u16>().prop_map(LogicalAddress::new);
    let addresses = (any_address.clone(), any_address);
    let data = proptest::collection::vec(any::<u8>(), 1..300);
    prop_oneof![
        any::<u8>().prop_map(|code| Payload::HeaderNack(code.into())),
        Just(Payload::IdentificationRequest),
        any::<[u8; 6]>().prop_map(|eid| Payload::IdentificationRequestByEid(Eid(eid))),
        any::<[u8; 17]>().prop_map(Payload::IdentificationRequestByVin),
        (any::<[u8; 17]>(), any::<u16>(), any::<[u8; 6]>(), 1..=254u8, any::<u8>(), any::<Option<u8>>())
            .prop_map(|(vin, address, eid, gid, further, sync)| {
                Payload::Announcement(Announcement {
                    vin,
                    address: address.into(),
                    eid: Eid(eid),
                    gid: Some(Gid([gid; 6])),
                    further_action: further.into(),
                    sync_status: sync.map(SyncStatus::from),
                })
            }),
        (any::<u16>(), any::<u8>(), any::<Option<[u8; 4]>>()).prop_map(|(source, kind, oem)| {
            let activation_type = ActivationType::from(kind);
            Payload::ActivationRequest(ActivationRequest { source: source.into(), activation_type, oem })
        }),
        (addresses.clone(), any::<u8>(), any::<Option<[u8; 4]>>()).prop_map(
            |((tester, entity), code, oem)| {
                let code = ActivationCode::from(code);
                Payload::ActivationResponse(ActivationResponse { tester, entity, code, oem })
            }
        ),
        Just(Payload::AliveCheckRequest),
        any::<u16>().prop_map(|source| Payload::AliveCheckResponse(source.into())),
        Just(Payload::EntityStatusRequest),
        (any::<[u8; 3]>(), any::<Option<u32>>()).prop_map(|([node, max, open], max_data_size)| {
            Payload::EntityStatusResponse(EntityStatus {
                node_type: node.into(),
                max_sockets: max,
                open_sockets: open,
                max_data_size,
            })
        }),
        Just(Payload::PowerModeRequest),
        any::<u8>().prop_map(|mode| Payload::PowerModeResponse(mode.into())),
        (addresses.clone(), data.clone()).prop_map(|((source, target), data)| {
            Payload::Diagnostic(DiagnosticMessage { source, target, data })
        }),
        (addresses.clone(), any::<u8>(), data.clone()).prop_map(|((source, target), code, previous)| {
            Payload::DiagnosticAck(DiagnosticAck { source, target, code, previous })
        }),
        (addresses, any::<u8>(), data.clone()).prop_map(|((source, target), code, previous)| {
            let code = DiagnosticNackCode::from(code);
            Payload::DiagnosticNack(DiagnosticNack { source, target, code, previous })
        }),
        (0xF000..=u16::MAX, data).prop_map(|(payload_type, data)| Payload::Other { payload_type, data }),
    ]
}

proptest! {
    #[test]
    fn every_message_survives_encoding_and_decoding(payload in any_payload(), version in 1u8..=0xFE) {
        let message = Message::new(ProtocolVersion::from(version), payload);
        let bytes = message.encode().unwrap();
        prop_assert_eq!(&decode_datagram(&bytes).unwrap(), &message);
        prop_assert_eq!(decode_all(&mut StreamDecoder::new(4096), &bytes), [Decoded::Message(message)]);
    }

    #[test]
    fn no_bytes_panic_the_decoder_or_fill_its_memory(chunks in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..64), 0..64))
    {
        let mut decoder = StreamDecoder::new(128);
        for chunk in chunks {
            decoder.handle_bytes(&chunk);
            while let Ok(Some(_)) = decoder.poll_message() {}
            prop_assert!(decoder.buffered() < HEADER_LEN + 128);
        }
    }
}

#[test]
fn the_default_version_is_for_vehicle_identification_only() {
    for (payload, is_taken) in [
        (Payload::IdentificationRequest, true),
        (Payload::IdentificationRequestByEid(Eid([1; 6])), true),
        (Payload::IdentificationRequestByVin([b'1'; 17]), true),
        (Payload::EntityStatusRequest, false),
        (Payload::PowerModeRequest, false),
        (Payload::AliveCheckRequest, false),
    ] {
        let bytes = Message::new(ProtocolVersion::Default, payload.clone()).encode().unwrap();
        let expected = if is_taken { Ok(payload) } else { Err(DecodeError::UnknownVersion(0xFF)) };
        assert_eq!(decode_datagram(&bytes).map(|message| message.payload), expected);
    }
}

#[test]
fn every_version_with_its_inverse_is_an_edition_except_the_reserved_one() {
    for version in 1..=0xFEu8 {
        let status = Message::new(ProtocolVersion::from(version), Payload::EntityStatusRequest);
        let encoded = status.encode().unwrap();
        assert_eq!(encoded[..2], [version, !version]);
        assert_eq!(decode_datagram(&encoded), Ok(status.clone()));
        assert_eq!(decode_all(&mut StreamDecoder::new(64), &encoded), [Decoded::Message(status)]);
    }
    let reserved = Message::new(ProtocolVersion::Other(0), Payload::EntityStatusRequest).encode().unwrap();
    assert_eq!(decode_datagram(&reserved), Err(DecodeError::UnknownVersion(0)));
}
