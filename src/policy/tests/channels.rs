//! ISO-TP channels: ECUs that read their frames with the other form of addressing find no refused request.

use super::*;

fn driving() -> Vehicle {
    let mut vehicle = Vehicle::new("", false);
    vehicle.drive(50.0);
    vehicle
}

impl Vehicle {
    fn channel(&mut self, id: u32, extended: Option<u8>, what: What<'_>) -> bool {
        let id = if id > 0x7FF { CanId::extended(id).unwrap() } else { standard(id) };
        let intent = Intent { bus: BUS, target: IntentTarget::Can { id, extended }, what };
        let arrival = self.policy.refuses(self.now, Stage::Arrival, &intent);
        arrival.or_else(|| self.policy.refuses(self.now, Stage::Turn, &intent)).is_none()
    }

    fn sends(&mut self, id: u32, extended: Option<u8>, request: &[u8]) -> bool {
        self.channel(id, extended, What::Pdu(request, Framing::default()))
    }
}

/// A read of this length, with bytes at one place.
fn read(length: usize, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut request = vec![0x22; length];
    request[at..at + bytes.len()].copy_from_slice(bytes);
    request
}

#[test]
fn an_address_that_reads_as_an_n_pci_hides_no_request() {
    for id in [0x7E0, 0x7DF, 0x710, 0x18DA_10F1] {
        let mut vehicle = driving();
        assert!(!vehicle.sends(id, Some(2), &read(257, 1, &[0; 4])), "{id:X}: 02 11 01 is a reset");
        assert!(!vehicle.sends(id, Some(1), &[0x22, 0xF1, 0x90, 0]), "{id:X}: 01 04 clears codes");
        assert!(!vehicle.sends(id, Some(4), &read(0x4FF, 1, &[1])), "{id:X}: 04 14 FF clears codes");
        assert!(!vehicle.sends(id, Some(4), &read(120, 83, &[0xF1, 0x90])), "{id:X}: 04 2E writes");
        assert!(!vehicle.sends(id, Some(0x10), &read(30, 5, &[0x2E, 0xF1])), "{id:X}: 10 21 2E writes");
        assert!(
            !vehicle.sends(id, Some(0x10), &read(30, 5, &[0x0B])),
            "{id:X}: 10 21 0B is an unknown service"
        );
        assert!(
            !vehicle.channel(id, Some(4), What::OpenChannel(Framing::default())),
            "{id:X}: 04 30 controls an output"
        );
    }
}

#[test]
fn a_frame_without_an_address_hides_no_request_behind_one() {
    let mut vehicle = driving();
    // BMW's ECU 29 reads a reset in the ninth consecutive frame
    let request = read(100, 6 + 8 * 7, &[0x02, 0x11, 0x01]);
    for id in [0x6F1, 0x710] {
        assert!(!vehicle.sends(id, None, &request), "{id:X}");
        assert!(!vehicle.sends(id, None, &[0x10, 0x0A, 0x2E, 0xF1, 0x90, 0x55]), "{id:X}: a first frame");
    }
    for id in [0x7E0, 0x7DF, 0x18DA_10F1] {
        assert!(vehicle.sends(id, None, &request), "{id:X} has normal addressing only");
    }
}

#[test]
fn padding_and_flow_control_of_a_channel_hide_no_request() {
    let mut vehicle = driving();
    for (padding, flow_control, is_allowed) in
        [(0xCC, [0, 0], true), (0x14, [0, 0], false), (0xCC, [8, 20], true), (0xCC, [2, 0x11], false)]
    {
        let framing = Framing { padding, flow_control, ..Framing::default() };
        // the ECU 01 reads the padding of 01 03, the ECU 30 the flow control 30 02 11
        let is_sent = vehicle.channel(0x710, None, What::Pdu(&[0x03], framing));
        let is_opened = vehicle.channel(0x710, None, What::OpenChannel(framing));
        assert_eq!(is_sent && is_opened, is_allowed, "{framing:X?}");
        assert!(vehicle.channel(0x7E0, None, What::Pdu(&[0x03], framing)), "{framing:X?}");
    }
}

#[test]
fn the_fd_frames_of_a_channel_hide_no_request() {
    let mut vehicle = driving();
    for tx_dl in [8, 12, 64] {
        let framing = Framing { tx_dl, ..Framing::default() };
        // without the address byte: 00 21, a single frame of CAN FD with 33 bytes
        let fits = usize::from(tx_dl) - 3;
        let hidden = read(200, fits, &[0x2E, 0xF1, 0x90, 0]);
        let is_sent = vehicle.channel(0x7E0, Some(0), What::Pdu(&hidden, framing));
        assert_eq!(is_sent, tx_dl < 64, "{tx_dl}");
        let plain = vec![0x22; 200];
        assert!(vehicle.channel(0x7E0, None, What::Pdu(&plain, framing)), "{tx_dl}");
    }
}

#[test]
fn a_response_shows_the_form_of_addressing_of_a_channel() {
    let mut vehicle = driving();
    let request = read(100, 6 + 8 * 7, &[0x02, 0x11, 0x01]);
    assert!(vehicle.sends(0x710, None, &[0x22, 0xF1, 0x90]));
    assert!(!vehicle.sends(0x710, None, &request));
    vehicle.hear(0x718, &[0x06, 0x62, 0xF1, 0x90, 1, 2, 3, 0xCC]);
    assert!(vehicle.sends(0x710, None, &request));
}

#[test]
fn ordinary_requests_of_channels_pass_while_the_vehicle_moves() {
    let mut vehicle = driving();
    let ecus = [(0x6F1, Some(0x12)), (0x6F1, Some(0x01)), (0x750, Some(0x0F)), (0x750, Some(0x40))];
    let normal = [0x7E0, 0x7DF, 0x710, 0x74D, 0x18DA_10F1, 0x18DB_33F1].map(|id| (id, None));
    for (id, extended) in ecus.into_iter().chain(normal) {
        assert!(
            vehicle.channel(id, extended, What::OpenChannel(Framing::default())),
            "{id:X} {extended:02X?}"
        );
        for request in [
            &[0x22, 0xF1, 0x90][..],
            &[0x22, 0xF1, 0x90, 0xF1, 0x87, 0xF1, 0x91, 0xF1, 0x8C],
            &[0x19, 0x02, 0xFF],
            &[0x19, 0x0A],
            &[0x10, 0x03],
            &[0x10, 0xC0],
            &[0x3E, 0x00],
            &[0x01, 0x0D],
            &[0x01, 0x00],
            &[0x09, 0x02],
            &[0x21, 0x01],
            &[0x1A, 0x90],
        ] {
            assert!(vehicle.sends(id, extended, request), "{id:X} {extended:02X?} {request:02X?}");
        }
    }
}

#[test]
fn a_flash_of_64_kib_with_any_bytes_passes_in_both_forms_of_addressing() {
    for (id, extended) in [(0x7E0, None), (0x18DA_10F1, None), (0x710, None), (0x6F1, Some(0x12))] {
        let mut vehicle = Vehicle::new("", false);
        vehicle.policy.handle_voltage(vehicle.now, Some(13.0));
        vehicle.stand();
        assert!(vehicle.sends(id, extended, &[0x34, 0, 0x44, 0, 0, 0, 0, 0, 1, 0, 0]), "{id:X}");
        let mut noise = 1_u32;
        for block in 1..=16_u8 {
            let data = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_be_bytes()[0]
            });
            let request: Vec<u8> = [0x36, block].into_iter().chain(data.take(4096)).collect();
            vehicle.drive(0.0);
            assert!(vehicle.sends(id, extended, &request), "{id:X} block {block}");
        }
        assert!(vehicle.sends(id, extended, &[0x37]), "{id:X}");
    }
}

#[test]
fn a_channel_on_an_identifier_outside_diagnostics_is_of_the_class_bus() {
    let mut vehicle = driving();
    for id in [0x1A0, 0x0CF0_0400] {
        assert!(!vehicle.channel(id, None, What::OpenChannel(Framing::default())), "{id:X}");
        assert!(!vehicle.channel(id, Some(0xFF), What::OpenChannel(Framing::default())), "{id:X}");
        assert!(vehicle.channel(id, None, What::OpenRawChannel), "{id:X}: each raw frame is judged");
        assert!(!vehicle.sends(id, Some(0xFF), &[0x22, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE]), "{id:X}");
    }
    let mut known = Vehicle::new("[facts]\ndiagnostic_ids = [0x1A0]", false);
    known.drive(50.0);
    assert!(
        known.channel(0x1A0, None, What::OpenChannel(Framing::default()))
            && known.sends(0x1A0, None, &[0x22, 0xF1, 0x90])
    );
}
