//! The simulated ECU's diagnostic server, in virtual time.

use std::time::{Duration, Instant};

use connector_sim::vehicle::catalogue::{EcuAddress, EcuRecord, Exchange};
use connector_sim::vehicle::ecu::{
    Ecu, EcuConfig, EcuStatus, Nrc, Responder, STATUS_AVAILABILITY_MASK, Session, Target, Timing, crc32,
    toy_key,
};
use connector_sim::vehicle::hex;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

/// An ECU and its clock.
struct Rig {
    ecu: Ecu,
    start: Instant,
    now: Instant,
}

fn exchange(request: &str, response: &str) -> Exchange {
    Exchange { request: hex::parse(request).unwrap(), response: hex::parse(response).unwrap() }
}

fn record(exchanges: Vec<Exchange>) -> EcuRecord {
    let address = EcuAddress {
        request: 0x7E0.try_into().unwrap(),
        response: 0x7E8.try_into().unwrap(),
        extended: None,
    };
    EcuRecord { name: "engine".to_owned(), address, exchanges }
}

impl Rig {
    fn new() -> Self {
        Self::with(vec![])
    }

    fn with(exchanges: Vec<Exchange>) -> Self {
        Self::configured(EcuConfig::new("PLATFORM", &record(exchanges)))
    }

    fn configured(config: EcuConfig) -> Self {
        let now = Instant::now();
        Self { ecu: Ecu::new(config), start: now, now }
    }

    /// Advances the time, with a transport that takes no time. Returns the responses with their times.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, Vec<u8>)> {
        let end = self.now + time;
        let mut responses = Vec::new();
        loop {
            while let Some(response) = self.ecu.poll_response() {
                responses.push((self.now - self.start, response));
                self.ecu.handle_response_done(self.now, true);
            }
            match self.ecu.poll_timeout() {
                Some((at, _)) if at <= end => {
                    self.now = at;
                    self.ecu.handle_timeout(at);
                }
                _ => break,
            }
        }
        self.now = end;
        responses
    }

    fn ask_as(&mut self, target: Target, request: &[u8], within: Duration) -> Vec<Vec<u8>> {
        self.ecu.handle_request(self.now, target, request);
        self.pass(within).into_iter().map(|(_, response)| response).collect()
    }

    /// The only response to a request, as hex; empty if there is none.
    fn ask(&mut self, request: &str) -> String {
        self.ask_bytes(&hex::parse(request).unwrap())
    }

    fn ask_bytes(&mut self, request: &[u8]) -> String {
        let responses = self.ask_as(Target::Physical, request, 20 * MS);
        assert!(responses.len() <= 1, "{responses:02X?}");
        responses.first().map(|response| hex::format(response)).unwrap_or_default()
    }

    fn ask_functional(&mut self, request: &str) -> String {
        let responses = self.ask_as(Target::Functional, &hex::parse(request).unwrap(), 20 * MS);
        assert!(responses.len() <= 1, "{responses:02X?}");
        responses.first().map(|response| hex::format(response)).unwrap_or_default()
    }

    fn status(&self) -> EcuStatus {
        self.ecu.status()
    }

    fn unlock(&mut self, level: u8) {
        let seed = self.ask_bytes(&[0x27, level]);
        let seed = <[u8; 4]>::try_from(&hex::parse(&seed).unwrap()[2..]).unwrap();
        let key = [&[0x27, level + 1], &toy_key(level, seed)[..]].concat();
        assert_eq!(self.ask_bytes(&key), format!("67{:02X}", level + 1));
    }

    /// An unlocked ECU in its programming session, with erased memory.
    fn ready_for_download() -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.ask("1002"), "5002003201F4");
        rig.unlock(0x11);
        let erased = rig.ask_as(Target::Physical, &[0x31, 0x01, 0xFF, 0x00], Duration::from_secs(3));
        assert_eq!(erased.last().unwrap(), &[0x71, 0x01, 0xFF, 0x00, 0x00]);
        rig
    }
}

#[test]
fn the_answers_of_the_real_ecu_take_precedence_over_general_ones() {
    let mut rig = Rig::with(vec![exchange("3E", "7E"), exchange("22F186", "62F18699")]);
    assert_eq!(rig.ask("3E"), "7E");
    assert_eq!(rig.ask("22F186"), "62F18699");
    assert_eq!(rig.ask("3E00"), "7E00");
    let other = EcuConfig::new("OTHER", &record(vec![]));
    assert_eq!(Rig::configured(other).ask("3E"), "7F3E13");
}

#[test]
fn several_known_identifiers_are_read_in_one_request() {
    let mut rig = Rig::with(vec![exchange("22F190", "62F190AABB"), exchange("22F188", "62F188CC")]);
    assert_eq!(rig.ask("22F188F190F186"), "62F188CCF190AABBF18601");
    assert_eq!(rig.ask("22F190DEAD"), "62F190AABB");
    assert_eq!(rig.ask("22DEAD"), "7F2231");
    assert_eq!(rig.ask("22F1"), "7F2213");
}

#[test]
fn unknown_services_and_identifiers_are_refused_physically() {
    let mut rig = Rig::with(vec![exchange("1A88", "5A88"), exchange("0902", "490201")]);
    assert_eq!(rig.ask("BA01"), "7FBA11");
    assert_eq!(rig.ask("2181"), "7F2111");
    assert_eq!(rig.ask("1A90"), "7F1A31");
    assert_eq!(rig.ask("0906"), "7F0912");
    assert_eq!(rig.ask("1104"), "7F1112");
    assert_eq!(rig.ask("2701"), "7F277F");
}

#[test]
fn common_refusals_of_a_functional_request_are_suppressed() {
    let mut rig = Rig::new();
    for (request, physical) in
        [("BA01", "7FBA11"), ("1104", "7F1112"), ("22DEAD", "7F2231"), ("2701", "7F277F")]
    {
        assert_eq!(rig.ask_functional(request), "", "{request}");
        assert_eq!(rig.ask(request), physical);
    }
    assert_eq!(rig.ask_functional("22F1"), "7F2213", "other refusals are given");
    assert_eq!(rig.ask_functional("1003"), "5003003201F4");
}

#[test]
fn positive_responses_are_suppressed_on_request_and_negative_ones_are_not() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("1083"), "");
    assert_eq!(rig.status().session, Session::Extended);
    assert_eq!(rig.ask("3E80"), "");
    assert_eq!(rig.ask_functional("8582FFFFFF"), "");
    assert_eq!(rig.ask_functional("288101"), "");
    assert_eq!((rig.status().dtc_setting, rig.status().communication), (false, 1));
    assert_eq!(rig.ask("3E81"), "7F3E12");
    assert_eq!(rig.status().tester_presents, 2);
}

#[test]
fn a_session_and_its_access_end_five_seconds_after_the_last_request() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("1003"), "5003003201F4");
    rig.unlock(1);
    assert_eq!(rig.ask("8502"), "C502");
    assert_eq!(rig.status().unlocked, Some(1));
    // `ask` took 20 ms, of which the answer took one
    rig.pass(Duration::from_secs(5) - 20 * MS);
    assert_eq!(rig.status().session, Session::Extended);
    rig.pass(MS);
    let status = rig.status();
    assert_eq!((status.session, status.unlocked, status.dtc_setting), (Session::Default, None, true));
}

#[test]
fn tester_present_keeps_a_session() {
    let mut rig = Rig::new();
    rig.ask("1003");
    for _ in 0..10 {
        rig.pass(Duration::from_secs(4));
        assert_eq!(rig.ask_functional("3E80"), "");
    }
    assert_eq!(rig.status().session, Session::Extended);
    assert_eq!(rig.ask("22F186"), "62F18603");
}

#[test]
fn s3_stands_still_while_a_long_request_is_received() {
    let mut rig = Rig::new();
    rig.ask("1003");
    rig.ecu.handle_reception_started(rig.now);
    rig.pass(Duration::from_secs(20));
    assert_eq!(rig.status().session, Session::Extended);
    rig.ecu.handle_reception_failed(rig.now);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.status().session, Session::Default);
    assert_eq!(rig.status().anomalies.broken_receptions, 1);
}

#[test]
fn s3_counts_from_the_response_being_on_the_bus() {
    let mut rig = Rig::new();
    rig.ecu.handle_request(rig.now, Target::Physical, &[0x10, 0x03]);
    rig.ecu.handle_timeout(rig.now + MS);
    assert!(rig.ecu.poll_response().is_some());
    rig.now += Duration::from_secs(30);
    rig.ecu.handle_timeout(rig.now);
    assert_eq!(rig.status().session, Session::Extended, "the response is still being sent");
    rig.ecu.handle_response_done(rig.now, false);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.status().session, Session::Default);
    assert_eq!(rig.status().anomalies.lost_responses, 1);
}

#[test]
fn a_key_unlocks_its_level_once_and_a_session_change_locks_again() {
    let mut rig = Rig::new();
    rig.ask("1003");
    rig.unlock(0x11);
    assert_eq!(rig.status().unlocked, Some(0x11));
    assert_eq!(rig.ask("2711"), "671100000000", "an unlocked level needs no key");
    rig.ask("1003");
    assert_eq!(rig.status().unlocked, None);
    assert_eq!(rig.ask("271200000000"), "7F2724", "a key without a seed");
    assert_eq!(rig.ask("2700"), "7F2712");
}

#[test]
fn the_third_wrong_key_locks_security_access_for_ten_seconds() {
    let mut rig = Rig::new();
    rig.ask("1003");
    for expected in ["7F2735", "7F2735", "7F2736"] {
        let seed = rig.ask("2701");
        assert_eq!(seed.len(), 12, "{seed}");
        assert_eq!(rig.ask("2702DEADBEEF"), expected);
    }
    assert_eq!(rig.ask("2701"), "7F2737");
    for _ in 0..3 {
        rig.pass(Duration::from_secs(3));
        rig.ask("3E80");
    }
    assert_eq!(rig.ask("2701"), "7F2737");
    rig.pass(Duration::from_secs(1));
    rig.unlock(1);
}

#[test]
fn seeds_differ_and_a_key_of_the_wrong_length_is_refused() {
    let mut rig = Rig::new();
    rig.ask("1003");
    let (first, second) = (rig.ask("2701"), rig.ask("2701"));
    assert_ne!(first, second);
    assert_eq!(rig.ask("2702DEADBE"), "7F2713");
    assert_eq!(rig.ask("2704DEADBEEF"), "7F2724", "another level's key");
}

#[test]
fn trouble_codes_are_read_by_mask_and_cleared_and_are_reproducible() {
    let with_dtcs = (0..)
        .map(|number| EcuConfig::new(&format!("P{number}"), &record(vec![])))
        .find(|config| Ecu::new(config.clone()).dtcs().len() == 3)
        .unwrap();
    let mut rig = Rig::configured(with_dtcs.clone());
    let dtcs = rig.ecu.dtcs().to_vec();
    assert_eq!(dtcs, Ecu::new(with_dtcs).dtcs());
    let all = rig.ask("1902FF");
    let listed: String =
        dtcs.iter().map(|dtc| hex::format(&dtc.code) + &hex::format(&[dtc.status])).collect();
    assert_eq!(all, format!("5902{STATUS_AVAILABILITY_MASK:02X}{listed}"));
    let confirmed = dtcs.iter().filter(|dtc| dtc.status & 0x08 != 0).count();
    assert_eq!(rig.ask("190208").len(), 6 + 8 * confirmed);
    assert_eq!(rig.ask("190108"), format!("5901{STATUS_AVAILABILITY_MASK:02X}01{confirmed:04X}"));
    assert_eq!(rig.ask("190200"), format!("5902{STATUS_AVAILABILITY_MASK:02X}"));
    assert_eq!(rig.ask(&format!("14{}", hex::format(&dtcs[0].code))), "54");
    assert_eq!(rig.ecu.dtcs().len(), 2);
    assert_eq!(rig.ask("14000000"), "7F1431");
    assert_eq!(rig.ask("14FFFFFF"), "54");
    assert_eq!(rig.ask("1902FF"), format!("5902{STATUS_AVAILABILITY_MASK:02X}"));
    assert_eq!(rig.ask("190A").len(), 6 + 8 * 3, "supported codes stay");
    assert_eq!(rig.ask("1902"), "7F1913");
}

#[test]
fn the_supported_information_types_are_reported_if_there_are_any() {
    let mut rig = Rig::with(vec![exchange("0902", "490201"), exchange("0904", "490401")]);
    assert_eq!(rig.ask_functional("0900"), "490050000000");
    assert_eq!(rig.ask_functional("0902"), "490201");
    assert_eq!(Rig::new().ask("0900"), "7F0911");
    assert_eq!(Rig::new().ask_functional("0900"), "");
}

#[test]
fn erasing_sends_response_pending_in_time() {
    let mut config = EcuConfig::new("P", &record(vec![]));
    config.timing = Timing { erase: Duration::from_secs(10), ..Timing::default() };
    let mut rig = Rig::configured(config);
    rig.ask("1002");
    rig.unlock(1);
    let asked = rig.now - rig.start;
    rig.ecu.handle_request(rig.now, Target::Physical, &[0x31, 0x01, 0xFF, 0x00]);
    let responses: Vec<_> = rig
        .pass(Duration::from_secs(20))
        .into_iter()
        .map(|(at, pdu)| (at - asked, hex::format(&pdu)))
        .collect();
    let pending = "7F3178".to_owned();
    assert_eq!(
        responses,
        [
            (40 * MS, pending.clone()),
            (4540 * MS, pending.clone()),
            (9040 * MS, pending),
            (10_000 * MS, "7101FF0000".to_owned())
        ]
    );
    assert_eq!(rig.status().pending_responses, 3);
}

#[test]
fn s3_stands_still_while_the_ecu_works() {
    let mut config = EcuConfig::new("P", &record(vec![]));
    config.timing = Timing { erase: Duration::from_secs(60), ..Timing::default() };
    let mut rig = Rig::configured(config);
    rig.ask("1002");
    rig.unlock(1);
    rig.ecu.handle_request(rig.now, Target::Physical, &[0x31, 0x01, 0xFF, 0x00]);
    rig.pass(Duration::from_secs(62));
    assert_eq!(rig.status().session, Session::Programming);
}

#[test]
fn a_suppressed_response_is_sent_after_response_pending() {
    let mut rig = Rig::ready_for_download();
    let responses = rig.ask_as(Target::Functional, &[0x31, 0x81, 0xFF, 0x00], Duration::from_secs(3));
    assert_eq!(responses, [vec![0x7F, 0x31, 0x78], vec![0x71, 0x01, 0xFF, 0x00, 0x00]]);
}

#[test]
fn a_busy_ecu_answers_busy_and_accepts_tester_present() {
    let mut rig = Rig::ready_for_download();
    rig.ask_as(Target::Physical, &[0x31, 0x01, 0xFF, 0x00], 100 * MS);
    assert_eq!(rig.ask("22F186"), "7F2221");
    assert_eq!(rig.ask("3E80"), "");
    assert_eq!(rig.ask_functional("22F186"), "");
    let status = rig.status();
    assert_eq!((status.anomalies.requests_while_busy, status.tester_presents), (2, 1));
    assert_eq!(rig.pass(Duration::from_secs(2)).len(), 1, "the ECU still answers the first request");
}

#[test]
fn requests_in_quick_succession_are_answered_in_order() {
    let mut rig = Rig::with(vec![exchange("0902", "490201"), exchange("22F190", "62F190")]);
    rig.ecu.handle_request(rig.now, Target::Functional, &[0x09, 0x02]);
    rig.ecu.handle_request(rig.now, Target::Functional, &[0x22, 0xF1, 0x90]);
    let responses: Vec<_> = rig.pass(20 * MS).into_iter().map(|(_, pdu)| hex::format(&pdu)).collect();
    assert_eq!(responses, ["490201", "62F190"]);
}

#[test]
fn a_reset_ends_the_session_and_is_silent_for_a_while() {
    let mut rig = Rig::new();
    rig.ask("1003");
    assert_eq!(rig.ask("1101"), "5101");
    assert_eq!(rig.status().session, Session::Default);
    assert_eq!(rig.ask("22F186"), "");
    rig.pass(300 * MS);
    assert_eq!(rig.ask("22F186"), "62F18601");
    let status = rig.status();
    assert_eq!((status.resets, status.anomalies.requests_while_resetting), (1, 1));
}

#[test]
fn a_download_needs_the_programming_session_a_key_and_erased_memory() {
    let mut rig = Rig::new();
    let request = "34004401020304000000FF";
    assert_eq!(rig.ask(request), "7F347F");
    rig.ask("1003");
    assert_eq!(rig.ask(request), "7F347F");
    rig.ask("1002");
    assert_eq!(rig.ask(request), "7F3433");
    assert_eq!(rig.ask("3101FF00"), "7F3133");
    rig.unlock(1);
    assert_eq!(rig.ask(request), "7F3470");
    assert_eq!(rig.ask("3601FF"), "7F3624");
    assert_eq!(rig.ask("37"), "7F3724");
    rig.ask_as(Target::Physical, &[0x31, 0x01, 0xFF, 0x00], Duration::from_secs(3));
    assert_eq!(rig.ask(request), "74200FFF");
    assert_eq!(rig.status().download.unwrap().address, 0x0102_0304);
}

#[test]
fn an_invalid_download_is_refused() {
    let mut rig = Rig::ready_for_download();
    assert_eq!(rig.ask("3400"), "7F3413");
    assert_eq!(rig.ask("34110102030405060708"), "7F3431", "a compressed format");
    assert_eq!(rig.ask("340000"), "7F3431", "no lengths");
    assert_eq!(rig.ask("34004401020304000000"), "7F3413", "a byte too few");
}

#[test]
fn empty_and_too_large_sizes_are_out_of_range() {
    let mut rig = Rig::ready_for_download();
    assert_eq!(rig.ask("3400440000000000000000"), "7F3431");
    assert_eq!(rig.ask("34004400000000FFFFFFFF"), "7F3431");
    assert_eq!(rig.ask("3400440000000001000001"), "7F3431", "a byte above 16 MiB");
    assert_eq!(rig.ask("3400440000000001000000"), "74200FFF");
}

#[test]
fn a_download_is_written_to_memory_and_can_be_checked() {
    let mut rig = Rig::ready_for_download();
    let image: Vec<u8> = (0..70_000_u32).map(|index| (index * 7 / 8) as u8).collect();
    assert_eq!(rig.ask("22F1A0"), "7F2231");
    assert_eq!(rig.ask("310102020000000000"), "7F3113");
    assert_eq!(rig.ask("3101020200000000"), "7F3124");
    assert_eq!(rig.ask(&format!("34004408000000{:08X}", image.len())), "74200FFF");
    // 274 blocks: the counter wraps
    for (index, block) in image.chunks(256).enumerate() {
        let counter = (index + 1) as u8;
        let request = [&[0x36, counter], block].concat();
        assert_eq!(rig.ask_bytes(&request), format!("76{counter:02X}"));
    }
    assert_eq!(rig.status().download.unwrap().received, image.len());
    assert_eq!(rig.ask("37"), "77");
    let check = [&[0x31, 1, 2, 2], &crc32(&image).to_be_bytes()[..]].concat();
    let checked = rig.ask_as(Target::Physical, &check, Duration::from_secs(1));
    assert_eq!(checked, [vec![0x7F, 0x31, 0x78], vec![0x71, 1, 2, 2, 0]]);
    let wrong = rig.ask_as(Target::Physical, &[0x31, 1, 2, 2, 0, 0, 0, 0], Duration::from_secs(1));
    assert_eq!(wrong.last().unwrap(), &[0x71, 1, 2, 2, 1]);

    let memory = rig.status().memory;
    assert_eq!((memory.len(), memory[0].address, &memory[0].data), (1, 0x0800_0000, &image));
    assert_eq!(
        rig.ask("22F1A0"),
        format!("62F1A00008000000{:08X}{:08X}", image.len(), crc32(&image)),
        "address, length and CRC"
    );
    assert_eq!(rig.ask("22F1A1").len(), 6 + 64);
    assert!(rig.status().anomalies.is_empty());
}

#[test]
fn downloaded_data_can_be_read_back() {
    let mut rig = Rig::ready_for_download();
    let image: Vec<u8> = (0..6000_u32).map(|index| (index / 3) as u8).collect();
    assert_eq!(rig.ask("3400440008000000001770"), "74200FFF");
    for (index, block) in image.chunks(4093).enumerate() {
        rig.ask_bytes(&[&[0x36, index as u8 + 1], block].concat());
    }
    assert_eq!(
        rig.ask("2324000800000004"),
        "7F2331",
        "the memory cannot be read before the transfer is complete"
    );
    assert_eq!(rig.ask("37"), "77");
    assert_eq!(rig.ask("2324000800000FFE"), format!("63{}", hex::format(&image[..4094])));
    assert_eq!(rig.ask("23140008176F01"), "63CF");
    assert_eq!(rig.ask("23140008177001"), "7F2331", "after the end of the data");
    assert_eq!(rig.ask("2324000800000FFF"), "7F2331", "longer than a response");
    assert_eq!(rig.ask("2324000800000000"), "7F2331");
    assert_eq!(rig.ask("2324000800"), "7F2313");
    rig.ask("1003");
    assert_eq!(rig.ask("2324000800000004"), "7F2333");
}

#[test]
fn a_repeated_block_is_answered_again_and_written_once() {
    let mut rig = Rig::ready_for_download();
    assert_eq!(rig.ask("340011AA04"), "74200FFF");
    assert_eq!(rig.ask("36010102"), "7601");
    assert_eq!(rig.ask("36010102"), "7601");
    assert_eq!(rig.ask("36010199"), "7601");
    assert_eq!(rig.ask("36030304"), "7F3673");
    assert_eq!(rig.ask("36020304"), "7602");
    assert_eq!(rig.ask("37"), "77");
    let status = rig.status();
    assert_eq!(status.memory[0].data, [1, 2, 3, 4]);
    let anomalies = status.anomalies;
    assert_eq!((anomalies.repeated_blocks, anomalies.repeated_blocks_that_differ), (2, 1));
    assert_eq!(anomalies.wrong_block_counters, 1);
}

#[test]
fn the_first_block_has_counter_one_and_none_has_more_than_was_announced() {
    let mut rig = Rig::ready_for_download();
    assert_eq!(rig.ask("340011AA04"), "74200FFF");
    assert_eq!(rig.ask("3600FF"), "7F3673");
    assert_eq!(rig.ask("3601"), "7F3613");
    assert_eq!(rig.ask("36010102030405"), "7F3631");
    assert_eq!(rig.ask("360101020304"), "7601");
    assert_eq!(rig.ask("3602FF"), "7F3631");
    let long = [&[0x36, 2][..], &[0; 4094]].concat();
    assert_eq!(rig.ask_bytes(&long), "7F3613", "longer than the announced block length");
    assert_eq!(rig.ask("37"), "77");
    assert_eq!(rig.ask("37"), "7F3724");
}

#[test]
fn an_incomplete_transfer_cannot_be_ended() {
    let mut rig = Rig::ready_for_download();
    rig.ask("340011AA04");
    rig.ask("36010102");
    assert_eq!(rig.ask("37"), "7F3724");
    assert_eq!(rig.ask("340011AA04"), "7F3470", "another transfer cannot begin");
    assert_eq!(rig.ask("36020304"), "7602");
    assert_eq!(rig.ask("37"), "77");
}

#[test]
fn written_memory_needs_erasing_before_it_is_written_again() {
    let mut rig = Rig::ready_for_download();
    for (request, block) in [("340011AA02", "36010102"), ("340011AC02", "36010304")] {
        assert_eq!(rig.ask(request), "74200FFF");
        assert_eq!(rig.ask(block), "7601");
        assert_eq!(rig.ask("37"), "77");
    }
    assert_eq!(rig.ask("340011AB02"), "7F3470", "overlaps both");
    assert_eq!(rig.status().memory.len(), 2);
    rig.ask_as(Target::Physical, &[0x31, 1, 0xFF, 0], Duration::from_secs(3));
    assert!(rig.status().memory.is_empty());
    assert_eq!(rig.ask("340011AB02"), "74200FFF");
}

#[test]
fn losing_the_session_loses_the_transfer() {
    let mut rig = Rig::ready_for_download();
    rig.ask("340011AA04");
    rig.ask("36010102");
    rig.pass(Duration::from_secs(6));
    assert_eq!((rig.status().session, rig.status().download), (Session::Default, None));
    assert_eq!(rig.ask("36020304"), "7F367F");
}

#[test]
fn a_fingerprint_is_written_only_with_a_key() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask("2EF15A0102"), "7F2E7F");
    rig.ask("1003");
    assert_eq!(rig.ask("2EF15A0102"), "7F2E33");
    rig.unlock(1);
    assert_eq!(rig.ask("2EF15A0102"), "6EF15A");
    assert_eq!(rig.ask("22F15A"), "62F15A0102");
    assert_eq!(rig.ask("2EF190414243"), "7F2E31");
}

#[test]
fn the_status_is_reported_only_when_it_may_have_changed() {
    let mut rig = Rig::new();
    assert!(rig.ecu.poll_status().is_some());
    assert_eq!(rig.ecu.poll_status(), None);
    rig.ask("3E00");
    assert_eq!(rig.ecu.poll_status().unwrap().requests, 1);
}

#[test]
fn negative_codes_have_the_standards_numbers() {
    assert_eq!(Nrc::ResponsePending.response(0x31), [0x7F, 0x31, 0x78]);
    assert_eq!(Nrc::BusyRepeatRequest.code(), 0x21);
}

proptest! {
    #[test]
    fn no_request_stops_an_ecu_or_gets_too_long_an_answer(
        steps in prop::collection::vec(
            (any::<bool>(), prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                (prop::sample::select(vec![0x09_u8, 0x10, 0x11, 0x14, 0x19, 0x22, 0x27, 0x28, 0x2E, 0x31, 0x34, 0x36, 0x37, 0x3E, 0x85]),
                 prop::collection::vec(any::<u8>(), 0..12)).prop_map(|(service, mut data)| { data.insert(0, service); data }),
            ], 0_u64..4000),
            1..60,
        ),
        prepared in any::<bool>(),
    ) {
        let mut rig = if prepared { Rig::ready_for_download() } else { Rig::new() };
        for (functional, request, wait) in steps {
            let target = if functional { Target::Functional } else { Target::Physical };
            rig.ecu.handle_request(rig.now, target, &request);
            for (_, response) in rig.pass(Duration::from_millis(wait)) {
                prop_assert!(!response.is_empty() && response.len() <= 4095);
                prop_assert!(response[0] == 0x7F || response[0] & 0x40 != 0);
            }
        }
        rig.pass(Duration::from_secs(30));
        prop_assert_eq!(rig.status().session, Session::Default);
        prop_assert_eq!(rig.ask("3E00"), "7E00");
    }
}
