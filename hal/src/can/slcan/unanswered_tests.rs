use super::*;
use crate::can::CanId;

const SETTINGS: CanSettings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
const MS: Duration = Duration::from_millis(1);
const STANDARD: FrameAnswer = FrameAnswer::Sent { extended: false };
const EXTENDED: FrameAnswer = FrameAnswer::Sent { extended: true };

fn push(unanswered: &mut Unanswered, now: Instant, id: u32) {
    unanswered.push(now, &CanFrame::new(CanId::try_from(id).unwrap(), &[1]).unwrap(), &SETTINGS);
}

/// For each settled frame, whether it was sent.
fn settled(unanswered: &mut Unanswered) -> Vec<bool> {
    std::iter::from_fn(|| unanswered.poll_settled()).map(|frame| frame.is_sent).collect()
}

#[test]
fn answers_settle_frames_in_order() {
    let (mut unanswered, start) = (Unanswered::default(), Instant::now());
    for id in [0x7E0, 0x7E1, 0x7E2] {
        push(&mut unanswered, start, id);
    }
    for answer in [STANDARD, FrameAnswer::Refused, STANDARD, STANDARD] {
        unanswered.handle_answer(start + MS, answer);
    }
    assert_eq!(settled(&mut unanswered), [true, false, true]);
    assert_eq!(unanswered.len(), 0);
}

#[test]
fn an_answer_after_a_lost_one_belongs_to_the_frame_that_was_sent_last() {
    for answer in [STANDARD, FrameAnswer::Accepted] {
        let (mut unanswered, start) = (Unanswered::default(), Instant::now());
        push(&mut unanswered, start, 0x7E0);
        push(&mut unanswered, start + OVERDUE_AFTER, 0x7E0);
        unanswered.handle_answer(start + OVERDUE_AFTER + MS, answer);
        assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true, true], 0));
        // a refusal too
        push(&mut unanswered, start, 0x7E0);
        push(&mut unanswered, start + 3 * OVERDUE_AFTER, 0x7E0);
        unanswered.handle_answer(start + 3 * OVERDUE_AFTER + MS, FrameAnswer::Refused);
        assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true, false], 0));
    }
}

#[test]
fn a_frame_that_no_node_acknowledges_waits_for_its_answer() {
    let (mut unanswered, start) = (Unanswered::default(), Instant::now());
    push(&mut unanswered, start, 0x7E0);
    let later = start + 900 * MS;
    // no other node is heard
    unanswered.handle_status(later, start + OVERDUE_AFTER, false);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![], 1));
    // another node is heard, but the adapter sees errors
    unanswered.handle_status(later, start + OVERDUE_AFTER, true);
    unanswered.handle_received(later);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![], 1));
    // the flags are from before the answer was overdue
    unanswered.handle_status(later, start, false);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![], 1));
    unanswered.handle_answer(later, STANDARD);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true], 0));
}

#[test]
fn frames_whose_answers_were_lost_together_are_settled_together() {
    let (mut unanswered, start) = (Unanswered::default(), Instant::now());
    for id in [0x7E0, 0x7E0, 0x7E0] {
        push(&mut unanswered, start, id);
    }
    unanswered.handle_answer(start, STANDARD);
    push(&mut unanswered, start + OVERDUE_AFTER - MS, 0x7E0);
    unanswered.handle_received(start + 5 * MS);
    unanswered.handle_status(start + OVERDUE_AFTER, start + OVERDUE_AFTER, false);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true; 3], 1));
}

#[test]
fn an_answer_to_a_later_command_proves_a_lost_acceptance() {
    let (mut unanswered, start) = (Unanswered::default(), Instant::now());
    push(&mut unanswered, start, 0x7E0);
    unanswered.handle_answer(start, FrameAnswer::Accepted);
    push(&mut unanswered, start, 0x7E0);
    unanswered.handle_status(start + OVERDUE_AFTER, start + OVERDUE_AFTER, true);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true; 2], 0));
}

#[test]
fn a_lost_answer_is_made_up_for_without_status_flags() {
    for (answer, wait) in [(STANDARD, OVERDUE_AFTER), (FrameAnswer::Accepted, OVERDUE_UNASKED)] {
        let (mut unanswered, start) = (Unanswered::default(), Instant::now());
        push(&mut unanswered, start, 0x7E0);
        unanswered.handle_answer(start, answer);
        assert_eq!(settled(&mut unanswered), [true]);
        push(&mut unanswered, start, 0x7E0);
        unanswered.handle_received(start + MS);
        let due = unanswered.poll_timeout().unwrap();
        assert_eq!(due, start + wait);
        unanswered.handle_timeout(due);
        assert_eq!((settled(&mut unanswered), unanswered.poll_timeout()), (vec![true], None));
    }
}

#[test]
fn the_letters_of_an_adapter_tell_which_frame_was_sent_first() {
    let (mut unanswered, start) = (Unanswered::default(), Instant::now());
    push(&mut unanswered, start, 0x7E0);
    push(&mut unanswered, start, 0x18DA_10F1);
    unanswered.handle_answer(start, EXTENDED);
    // outcomes are reported in the order in which the frames were sent
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![], 2));
    unanswered.handle_answer(start, STANDARD);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true; 2], 0));
    // the answer to a later frame shows that the oldest was sent
    push(&mut unanswered, start, 0x7E0);
    push(&mut unanswered, start, 0x18DA_10F1);
    unanswered.handle_answer(start, EXTENDED);
    unanswered.handle_status(start + OVERDUE_AFTER, start + OVERDUE_AFTER, false);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true; 2], 0));
}

#[test]
fn an_adapter_with_one_letter_for_all_identifiers_is_understood() {
    for answer in [STANDARD, EXTENDED] {
        let (mut unanswered, start) = (Unanswered::default(), Instant::now());
        push(&mut unanswered, start, 0x18DA_10F1);
        push(&mut unanswered, start, 0x7E0);
        unanswered.handle_answer(start, answer);
        unanswered.handle_answer(start, answer);
        assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![true; 2], 0), "{answer:?}");
    }
}

#[test]
fn surplus_answers_settle_no_later_frame() {
    let (mut unanswered, start) = (Unanswered::default(), Instant::now());
    push(&mut unanswered, start, 0x7E0);
    for answer in [STANDARD, FrameAnswer::Accepted, STANDARD, FrameAnswer::Refused] {
        unanswered.handle_answer(start, answer);
    }
    assert_eq!(settled(&mut unanswered), [true]);
    push(&mut unanswered, start, 0x7E0);
    unanswered.handle_answer(start, FrameAnswer::Accepted);
    assert_eq!((settled(&mut unanswered), unanswered.len()), (vec![], 1));
}
