//! Whatever raw frames go in, an ECU reassembles no refused service from those that were let through.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::policy::services::classify;
use crate::protocol::isotp::{Addressing, Config, Endpoint, Event};

/// The ECU's endpoint: it receives with `request`, and answers with another identifier.
fn endpoint(request: CanId, extended: Option<u8>) -> Endpoint {
    let response = standard(0x7E8);
    let addressing = match extended {
        None => Addressing::normal(response, request),
        Some(address) => Addressing::extended(response, request, 0xF1, address),
    };
    Endpoint::new(Config::new(addressing))
}

/// Frames that are near to those of ISO-TP: their first bytes are often a PCI, an address, or a service.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => 0x00_u8..0x40,
        2 => prop_oneof![Just(0x10_u8), Just(0x11), Just(0x21), Just(0x22), Just(0x2E), Just(0x34), Just(0x36), Just(0x02)],
        1 => any::<u8>(),
    ];
    prop_oneof![4 => vec(byte.clone(), 8..=8), 1 => vec(byte.clone(), 0..8), 1 => vec(byte, 12..=12)]
}

fn ids() -> impl Strategy<Value = CanId> {
    prop_oneof![Just(standard(0x714)), Just(standard(0x7E0)), Just(standard(0x6F1)), Just(standard(0x123))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn ecus_reassemble_no_refused_service(frames in vec((ids(), data()), 1..40)) {
        // raw frames that are no diagnostics are allowed, so that nothing but the watchers refuses
        let mut vehicle = Vehicle::new("require = { bus = [] }", false);
        vehicle.drive(50.0);
        let mut ecus: Vec<(CanId, Endpoint)> = Vec::new();
        for id in [standard(0x714), standard(0x7E0), standard(0x6F1), standard(0x123)] {
            // ECUs behind 0x6F1 have extended addressing
            if id != standard(0x6F1) {
                ecus.push((id, endpoint(id, None)));
            }
            for address in [0x02, 0x10, 0x11, 0x21, 0x22, 0x30, 0x34] {
                ecus.push((id, endpoint(id, Some(address))));
            }
        }
        for (id, data) in frames {
            vehicle.pass(1);
            vehicle.drive(50.0);
            if vehicle.frame(id, &data).is_some() {
                continue;
            }
            let frame = frame(id, &data);
            for (_, ecu) in ecus.iter_mut().filter(|(listens, _)| *listens == id) {
                ecu.handle_frame(vehicle.now, &frame);
                while ecu.poll_transmit(vehicle.now).is_some() {
                    ecu.handle_transmitted(vehicle.now);
                }
                while let Some(event) = ecu.poll_event() {
                    if let Event::Received { pdu, .. } = event {
                        let classified = classify(&pdu);
                        let is_refused = matches!(classified.class, Class::Intrusive | Class::Programming);
                        prop_assert!(!is_refused || !super::super::services::can_be_carried_out(&pdu),
                            "{pdu:02X?} of {frame:?}");
                    }
                }
            }
        }
    }
}
