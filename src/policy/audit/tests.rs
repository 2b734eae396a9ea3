use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::policy::tests::{BUS, Vehicle, ecu, standard};
use crate::policy::{Class, Intent, IntentTarget, Stage, What};

const ALL_ALLOWED: &str = "[require]\nintrusive = []\nprogramming = []\nbus = []";

/// The lines of all entries so far, as a file.
struct Log {
    text: String,
    head: AuditHash,
}

impl Log {
    fn new() -> Self {
        Self { text: String::new(), head: AuditHash::NONE }
    }

    /// Adds the entries of the policy, and returns their lines.
    fn take(&mut self, vehicle: &mut Vehicle) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(entry) = vehicle.policy.poll_audit(vehicle.now) {
            let line = self.add(&entry, vehicle.now);
            lines.push(serde_json::from_str(&line).unwrap());
        }
        lines
    }

    fn add(&mut self, entry: &AuditEntry, now: Instant) -> String {
        let line = entry.line(self.head, &stamp(now));
        self.head = AuditHash::of(line.trim_end().as_bytes());
        self.text.push_str(&line);
        line
    }
}

fn stamp(now: Instant) -> AuditStamp<'static> {
    AuditStamp { boot: "b007", now, up_ms: 60_000, unix_ms: 1_796_033_009_000 }
}

fn lines(vehicle: &mut Vehicle) -> Vec<Value> {
    Log::new().take(vehicle)
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["entry"].as_str().unwrap()).collect()
}

/// A log of five lines.
fn log_of_five() -> String {
    let (mut log, now) = (Log::new(), Instant::now());
    for count in 1..=5 {
        log.add(&AuditEntry::lost(now, count), now);
    }
    log.text
}

fn check(text: &str) -> Result<CheckedAuditFile, ChainBreak> {
    ChainCheck::default().check_file(text.as_bytes())
}

fn broken(line: usize, fault: ChainFault) -> Result<CheckedAuditFile, ChainBreak> {
    Err(ChainBreak { line, fault })
}

#[test]
fn a_refusal_has_a_line_with_request_reason_and_facts_in_a_fixed_order() {
    let mut vehicle = Vehicle::new("", false);
    let uuid = Uuid::from_u128(7);
    vehicle.policy.announce_connection(uuid, Some("7014044"));
    vehicle.policy.handle_opened(vehicle.now, true, false);
    vehicle.policy.handle_voltage(vehicle.now, Some(12.4));
    vehicle.policy.handle_ignition(Some(true));
    vehicle.drive(12.0);
    let mut request = vec![0x2E, 0xF1, 0x90];
    request.extend(b"WVWZZZ1KZAW000001");
    assert!(vehicle.pdu(&request).is_some());
    let mut log = Log::new();
    log.take(&mut vehicle);
    let sha256 = AuditHash::of(b"WVWZZZ1KZAW000001");
    assert_eq!(
        log.text,
        format!(
            "{{\"previous\":\"{}\",\"entry\":\"refused\",\"time_ms\":1796033009000,\"boot\":\"b007\",\"up_ms\":60000,\
             \"connection\":\"{uuid}\",\"ticket\":\"7014044\",\"bus\":\"HS\",\"target\":\"0x7E0\",\
             \"name\":\"WriteDataByIdentifier\",\"service\":\"2E\",\"identifier\":\"F190\",\"length\":17,\
             \"sha256\":\"{sha256}\",\"class\":\"intrusive\",\"rule\":0,\"why\":\"moving (12 km/h)\",\
             \"motion\":\"moving\",\"speed_kmh\":12,\"voltage\":12.4,\"engine\":\"unknown\",\"ignition\":true}}\n",
            "0".repeat(64)
        )
    );
}

#[test]
fn keys_and_short_data_are_not_in_the_audit_not_even_as_a_hash() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.drive(50.0);
    let secret = [0xAB; 40];
    for head in [&[0x27, 0x02][..], &[0x29, 0x03]] {
        vehicle.pdu(&[head, &secret].concat());
    }
    vehicle.pdu(&[0x3D, 0x14, 0xAB, 0xAB, 0xAB, 0xAB]);
    vehicle.frame(standard(0x7E1), &[0x06, 0x27, 0x02, 0xAB, 0xAB, 0xAB, 0xAB]);
    vehicle.frame(standard(0x123), &[0xAB; 8]);
    let mut log = Log::new();
    let found = log.take(&mut vehicle);
    assert_eq!(kinds(&found), ["refused"; 5]);
    assert!(!log.text.contains("sha256"), "{}", log.text);
    let parts: Vec<_> =
        found.iter().map(|line| (&line["service"], &line["sub_function"], &line["length"])).collect();
    assert_eq!(
        serde_json::to_value(parts).unwrap(),
        serde_json::json!([
            ["27", "02", 40],
            ["29", "03", 40],
            ["3D", null, 5],
            ["27", "02", null],
            [null, null, null]
        ])
    );
}

#[test]
fn the_identifiers_of_a_request_are_those_of_its_protocol() {
    let parts = |target, request: &[u8]| {
        let RequestParts { sub_function, parameter, identifier, routine, .. } =
            RequestParts::of(target, request);
        (sub_function, parameter, identifier, routine)
    };
    let kwp = IntentTarget::Address(0x10);
    assert_eq!(parts(ecu(), &[0x31, 0x81, 0xFF, 0x00, 1]), (Some(1), None, None, Some(0xFF00)));
    assert_eq!(parts(kwp, &[0x31, 0x81, 0xFF, 0x00, 1]), (None, Some(0x81), None, None));
    assert_eq!(parts(ecu(), &[0x2F, 0x01, 0x02, 3]), (None, None, Some(0x0102), None));
    assert_eq!(parts(kwp, &[0x3B, 0x98, 1]), (None, Some(0x98), None, None));
    assert_eq!(parts(ecu(), &[0x36, 0x01, 2]), (None, None, None, None));
    assert_eq!(parts(ecu(), &[0x2E, 0xF1]), (None, None, None, None));
}

#[test]
fn a_flood_of_alike_refusals_has_one_line_and_a_sum_every_ten_seconds() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.drive(50.0);
    let mut log = Log::new();
    let mut found = Vec::new();
    for _ in 0..2500 {
        vehicle.drive(50.0);
        vehicle.frame(standard(0x123), &[1, 2, 3]);
        found.extend(log.take(&mut vehicle));
        vehicle.pass(10);
    }
    vehicle.policy.handle_closed();
    found.extend(log.take(&mut vehicle));
    assert_eq!(
        kinds(&found),
        ["refused", "refused-again", "refused", "refused-again", "refused", "refused-again"]
    );
    let counts: u64 = found.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(counts, 2500);
    let span = found[1]["time_ms"].as_u64().unwrap() - found[1]["since_ms"].as_u64().unwrap();
    assert!((9900..=10_000).contains(&span), "{}", found[1]);
}

#[test]
fn refusals_of_many_kinds_are_counted_together_beyond_sixteen() {
    let mut vehicle = Vehicle::new("", false);
    let mut log = Log::new();
    vehicle.drive(50.0);
    for id in 0x100..0x500 {
        vehicle.frame(standard(id), &[1]);
    }
    let mut found = log.take(&mut vehicle);
    vehicle.pass(10_000);
    found.extend(log.take(&mut vehicle));
    assert_eq!(found.len(), 17, "{:?}", kinds(&found));
    assert_eq!(found[16]["entry"], "refused-others");
    assert_eq!(found[16]["count"], 0x400 - 16);
    assert_eq!(vehicle.policy.audit.poll_timeout(), None);
}

#[test]
fn refusals_that_are_only_observed_are_marked_and_have_one_line() {
    let mut vehicle = Vehicle::new("mode = \"observe\"", false);
    vehicle.drive(50.0);
    assert!(vehicle.pdu(&[0x11, 0x01]).is_none());
    let found = lines(&mut vehicle);
    assert_eq!(kinds(&found), ["refused"]);
    assert_eq!(found[0]["sent"], true);
}

#[test]
fn consent_has_a_line_for_each_change_with_the_connection_of_that_moment() {
    let mut vehicle = Vehicle::new("", true);
    let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
    vehicle.policy.announce_connection(one, None);
    vehicle.policy.handle_opened(vehicle.now, false, true);
    vehicle.policy.request_consent(vehicle.now, Class::Bus).unwrap();
    vehicle.pass(600);
    vehicle.policy.handle_button(vehicle.now, true);
    vehicle.pass(200);
    vehicle.policy.handle_button(vehicle.now, false);
    vehicle.policy.handle_closed();
    vehicle.policy.announce_connection(two, None);
    vehicle.policy.handle_opened(vehicle.now, false, false);
    vehicle.policy.handle_button(vehicle.now, true);
    vehicle.pass(3000);
    let found = lines(&mut vehicle);
    let expected = [
        ("consent-given", "intrusive", "ticket", one),
        ("consent-given", "programming", "ticket", one),
        ("consent-asked", "bus", "", one),
        ("consent-given", "bus", "button", one),
        ("consent-ended", "intrusive", "", one),
        ("consent-ended", "programming", "", one),
        ("consent-ended", "bus", "", one),
        ("consent-revoked", "", "", two),
    ];
    let expected =
        expected.map(|(entry, class, by, uuid)| [entry.into(), class.into(), by.into(), uuid.to_string()]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let seen: Vec<_> =
        found.iter().map(|line| ["entry", "class", "by", "connection"].map(|key| text(&line[key]))).collect();
    assert_eq!(seen, expected);
}

#[test]
fn programming_has_a_line_for_its_beginning_and_one_for_its_end() {
    type End = (fn(&mut Vehicle), &'static str);
    let ends: [End; 5] = [
        (|vehicle| assert!(vehicle.pdu(&[0x10, 0x01]).is_none()), "default session"),
        (|vehicle| assert!(vehicle.pdu(&[0x11, 0x01]).is_none()), "reset"),
        (|vehicle| vehicle.pass(300_000), "five minutes"),
        (|vehicle| vehicle.policy.handle_transfer_ended(0, ecu()), "chain"),
        (|vehicle| vehicle.policy.handle_closed(), "connection"),
    ];
    for (end, why) in ends {
        let mut vehicle = Vehicle::new(ALL_ALLOWED, false);
        for request in [&[0x10, 0x03][..], &[0x10, 0x02], &[0x34, 0, 0x44], &[0x36, 1, 0xAA], &[0x37]] {
            assert!(vehicle.pdu(request).is_none());
        }
        vehicle.pass(100);
        assert_eq!(kinds(&lines(&mut vehicle)), ["programming-begun"]);
        end(&mut vehicle);
        let found = lines(&mut vehicle);
        assert_eq!(kinds(&found), ["programming-ended"], "{why}");
        assert!(found[0]["why"].as_str().unwrap().contains(why), "{}", found[0]);
        assert_eq!(found[0]["requests"], 4);
        assert_eq!((&found[0]["name"], &found[0]["service"]), (&"programmingSession".into(), &"10".into()));
    }
}

#[test]
fn programming_by_raw_frames_is_seen() {
    let mut vehicle = Vehicle::new(ALL_ALLOWED, false);
    assert!(vehicle.frame(standard(0x7E0), &[0x02, 0x10, 0x02]).is_none());
    let found = lines(&mut vehicle);
    assert_eq!(kinds(&found), ["programming-begun"]);
    assert_eq!(found[0]["target"], "0x7E0");
}

#[test]
fn entries_that_do_not_fit_are_counted_and_the_count_has_a_line() {
    let mut vehicle = Vehicle::new(ALL_ALLOWED, false);
    for _ in 0..100 {
        let intent = Intent {
            bus: BUS,
            target: ecu(),
            what: What::Pdu(&[0x10, 0x02], crate::policy::Framing::default()),
        };
        vehicle.policy.refuses(vehicle.now, Stage::Turn, &intent);
        vehicle.pdu(&[0x10, 0x01]);
    }
    let found = lines(&mut vehicle);
    assert_eq!(found.len(), 65);
    assert_eq!((&found[64]["entry"], &found[64]["count"]), (&"lost".into(), &136.into()));
}

#[test]
fn the_end_of_a_window_wakes_the_policy() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.drive(50.0);
    vehicle.frame(standard(0x123), &[1]);
    assert_eq!(vehicle.policy.audit.poll_timeout(), Some(vehicle.now + Duration::from_secs(10)));
}

#[test]
fn an_intact_chain_is_accepted_across_files() {
    let text = log_of_five();
    let cut = text.match_indices('\n').nth(1).unwrap().0 + 1;
    let wanted = AuditHash::of(text.lines().nth(2).unwrap().as_bytes());
    let mut check = ChainCheck::looking_for(Some(wanted));
    assert_eq!(check.check_file(&text.as_bytes()[..cut]), Ok(CheckedAuditFile { lines: 2, torn: 0 }));
    assert!(!check.has_found());
    assert_eq!(check.check_file(&text.as_bytes()[cut..]), Ok(CheckedAuditFile { lines: 3, torn: 0 }));
    assert!(check.has_found());
    assert_eq!(check.head(), Some(AuditHash::of(text.lines().last().unwrap().as_bytes())));
    assert_eq!(wanted.to_string().parse(), Ok(wanted));
}

#[test]
fn a_changed_removed_or_swapped_line_is_named() {
    let text = log_of_five();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    assert_eq!(check(&text), Ok(CheckedAuditFile { lines: 5, torn: 0 }));
    let changed = text.replace("\"count\":3", "\"count\":8");
    assert_eq!(check(&changed), broken(4, ChainFault::Discontinuous), "the line after the changed one");
    let spoiled = text.replace("{\"previous\"", "[\"previous\"");
    assert_eq!(check(&spoiled), broken(1, ChainFault::NotAnEntry));
    let removed = [lines[0], lines[1], lines[3], lines[4]].concat();
    assert_eq!(check(&removed), broken(3, ChainFault::Discontinuous));
    let swapped = [lines[0], lines[2], lines[1], lines[3], lines[4]].concat();
    assert_eq!(check(&swapped), broken(2, ChainFault::Discontinuous));
    assert_eq!(check(&text[..text.len() - 9]), broken(5, ChainFault::Incomplete));
}

#[test]
fn every_changed_byte_before_the_last_line_is_detected() {
    let text = log_of_five().into_bytes();
    let last = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    let first = text.iter().position(|byte| *byte == b'\n').unwrap();
    for at in 0..last {
        let mut changed = text.clone();
        changed[at] ^= 1;
        let line = text[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let found = ChainCheck::default().check_file(&changed).unwrap_err().line;
        assert!(found == line || found == line + 1, "byte {at} (first line {first}): {found}");
    }
}

#[test]
fn a_torn_line_is_accepted_only_with_its_mark() {
    let text = log_of_five();
    for cut in [text.len() - 1, text.len() - 9, text.rfind("{\"prev").unwrap() + 1] {
        let file = &text[..cut];
        let end = ChainEnd::of(file.as_bytes());
        let (head, now) = (end.head.unwrap(), Instant::now());
        let mark = torn_line(head, end.torn, &stamp(now));
        let next = AuditEntry::lost(now, 1).line(AuditHash::of(mark.trim_end().as_bytes()), &stamp(now));
        assert_eq!(check(&format!("{file}\n{mark}{next}")), Ok(CheckedAuditFile { lines: 7, torn: 1 }));
        let without = AuditEntry::lost(now, 1).line(head, &stamp(now));
        let found = check(&format!("{file}\n{without}")).unwrap_err();
        assert!((5..=6).contains(&found.line), "{found:?}");
        let other = torn_line(head, b"other", &stamp(now));
        assert!(check(&format!("{file}\n{other}{next}")).is_err());
    }
    assert_eq!(ChainEnd::of(b""), ChainEnd { head: None, torn: b"" });
    assert_eq!(ChainEnd::of(b"x"), ChainEnd { head: None, torn: b"x" });
}
