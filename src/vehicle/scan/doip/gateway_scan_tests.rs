use super::*;

const GATEWAY: LogicalAddress = LogicalAddress::new(0x1010);
const BUDGET: Duration = Duration::from_secs(10);

/// Runs a scan of a gateway until the scan is over, waits or reaches its limit. The gateway acknowledges each
/// question and answers as `answers` says, but refuses a TesterPresent to an address without an answer. Returns the
/// scan, and the questions with their times.
fn scan(
    mut may_scan: bool,
    mut answers: impl FnMut(&DoipQuestion) -> Vec<(LogicalAddress, Vec<u8>)>,
) -> (GatewayScan<u32>, Vec<(Duration, DoipQuestion)>) {
    let start = Instant::now();
    let mut now = start;
    let mut scan = GatewayScan::new(GATEWAY, start + BUDGET);
    let mut asked = Vec::new();
    while now < start + BUDGET {
        if let Some(question) = scan.poll_transmit(now, may_scan) {
            now += Duration::from_micros(500);
            let id = u32::try_from(asked.len()).unwrap();
            scan.handle_sent(now, id, question.target);
            let answers = answers(&question);
            match is_tester_present(&question) && answers.is_empty() {
                true => scan.handle_failed(id),
                false => scan.handle_acknowledged(now, id),
            }
            for (source, pdu) in answers {
                may_scan |= scan.handle_response(source, &pdu) == Some(Motion::Stands);
            }
            asked.push((now - start, question));
            continue;
        }
        if scan.is_over() || scan.is_waiting() && !may_scan {
            break;
        }
        now = now.max(scan.poll_timeout(true).unwrap_or(now)) + Duration::from_millis(1);
        scan.handle_timeout(now);
    }
    (scan, asked)
}

fn ecu(address: u16) -> LogicalAddress {
    LogicalAddress::new(address)
}

fn is_tester_present(question: &DoipQuestion) -> bool {
    *question.pdu == TESTER_PRESENT_ANSWERED
}

fn found(scan: &GatewayScan<u32>) -> Vec<u16> {
    scan.found().map(LogicalAddress::get).collect()
}

#[test]
fn every_address_is_asked_once_and_those_near_the_gateway_first() {
    for gateway in [0x4010, 0x1010, 0x0010] {
        let planned: Vec<u16> = plan(LogicalAddress::new(gateway)).collect();
        let once: BTreeSet<u16> = planned.iter().copied().collect();
        assert_eq!(planned.len(), once.len());
        assert!(planned.iter().take(255).all(|address| address & 0xFF00 == gateway & 0xFF00));
        assert!(once.contains(&gateway) && once.contains(&0x1001) && once.contains(&0x0DFF));
        assert!(!once.contains(&0) && !once.contains(&0x0E80) && !once.contains(&0xE000));
    }
}

#[test]
fn no_ecu_behind_a_gateway_is_asked_without_evidence_or_consent() {
    let (scan_without, asked) = scan(false, |_| vec![]);
    assert!(scan_without.is_waiting());
    assert!(!asked.iter().any(|(_, question)| is_tester_present(question)));
    let targets: BTreeSet<_> = asked.iter().map(|(_, question)| question.target).collect();
    assert_eq!(targets, [GATEWAY, OBD_FUNCTIONAL].into());
    for (answer, is_scanned) in [([0x62, 0xF4, 0x0D, 0], true), ([0x62, 0xF4, 0x0C, 0], false)] {
        let (scan, _) = scan(false, |question| match question.target == OBD_FUNCTIONAL {
            true => vec![(ecu(0x1005), answer.to_vec())],
            false => vec![],
        });
        assert_eq!(scan.is_over(), is_scanned, "{answer:02X?}");
    }
}

#[test]
fn the_speed_is_asked_every_second_during_a_scan_by_doip() {
    let (scan, asked) =
        scan(true, |question| match is_tester_present(question) && question.target == ecu(0x1005) {
            true => vec![(ecu(0x1005), vec![0x7E, 0])],
            false => vec![],
        });
    assert_eq!((found(&scan), scan.is_over()), (vec![0x1005], true));
    let speed: Vec<_> =
        asked.iter().filter(|(_, question)| *question.pdu == SPEED_BY_UDS).map(|(at, _)| *at).collect();
    assert!(speed.len() >= 4, "{speed:?}");
    assert!(speed.windows(2).all(|two| two[1] - two[0] < Duration::from_millis(1100)), "{speed:?}");
}

#[test]
fn a_gateway_that_answers_at_random_invents_no_ecu() {
    let mut state = 1_u32;
    let (scan, _) = scan(true, |question| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let random = ecu(u16::try_from(state >> 16 & 0x1FFF).unwrap());
        let mut answers = vec![(random, vec![0x7E, 0])];
        if is_tester_present(question) && question.target == ecu(0x1005) {
            answers.push((question.target, vec![0x7E, 0]));
        }
        answers
    });
    let found = found(&scan);
    assert!(found.is_empty() || found == [0x1005], "{found:04X?}");
}

#[test]
fn an_unknown_address_costs_no_answer_time() {
    let start = Instant::now();
    let mut scan = GatewayScan::<u32>::new(GATEWAY, start + BUDGET);
    for id in 0..2 {
        let question = scan.poll_transmit(start, true).unwrap();
        scan.handle_sent(start, id, question.target);
        scan.handle_failed(id);
    }
    let question = scan.poll_transmit(start, true).unwrap();
    assert!(is_tester_present(&question));
}

#[test]
fn a_speed_that_cannot_be_asked_now_does_not_wake_the_scan_again_and_again() {
    let start = Instant::now();
    let mut scan = GatewayScan::<u32>::new(GATEWAY, start + BUDGET);
    let mut id = 0;
    while let Some(question) = scan.poll_transmit(start, true) {
        scan.handle_sent(start, id, question.target);
        match is_tester_present(&question) {
            // from now on, the gateway acknowledges nothing
            true => {}
            false => {
                scan.handle_acknowledged(start, id);
                scan.handle_timeout(start + ANSWER_TIME);
            }
        }
        id += 1;
    }
    let late = start + SPEED_EVERY;
    assert!(scan.poll_transmit(late, true).is_none());
    assert!(scan.poll_timeout(true).is_some_and(|at| at > late), "too many questions are unacknowledged");
    scan.handle_timeout(start + ACKNOWLEDGE_TIME);
    assert_eq!(scan.poll_timeout(false), None, "the connection is down");
}
