//! The connector's button as the answer to controls: a mechanic at the vehicle lets a script continue.

use connector_agent::cli::clean;
use connector_agent::relay::wire::ProblemKind;
use tonic::Status;

use super::configuration::is_unknown_action;
use super::gateway::Live;
use super::proto::control::ControlType;
use super::proto::{Control, InterfaceType};
use crate::client::{ConsentOutcome, ConsentWait, OperatorError, PolicySummary};

/// The classes that a press may consent to: those that change nothing in the vehicle.
const CLASSES: [&str; 2] = ["read", "session"];
/// The longest text for the connector's log.
const MAX_TEXT: usize = 200;

/// What a control got from the button.
pub(super) enum Press {
    Pressed,
    /// The connector cannot ask, with the status for a control that nobody else answers.
    NoButton(Status),
}

/// The label of a control that the button can answer: a request to the mechanic to continue.
pub(super) fn label(control: &Control) -> Option<&str> {
    match &control.control_type {
        Some(ControlType::ControlContinue(continues))
            if control.target != InterfaceType::InterfaceOperator as i32 =>
        {
            Some(&continues.label)
        }
        _ => None,
    }
}

/// The class that needs no consent, so that a press allows the script nothing new.
fn class(policy: &PolicySummary) -> Option<&'static str> {
    let needs_consent = |class: &str| {
        policy.require.get(class).is_some_and(|conditions| conditions.iter().any(|one| one == "consent"))
    };
    CLASSES.into_iter().find(|class| !needs_consent(class))
}

fn no_button(why: &str) -> Press {
    let sentence = format!("the connector's button cannot answer: {}", clean(why));
    Press::NoButton(Status::failed_precondition(sentence))
}

/// Waits until the mechanic presses the button.
pub(super) async fn press(live: &Live, label: &str) -> Result<Press, Status> {
    let Some(policy) = &live.connection.joined().policy else {
        return Ok(no_button("the connector is too old to ask the person at the vehicle"));
    };
    let Some(class) = class(policy) else {
        return Ok(no_button("with this connector's policy, a press would also allow requests"));
    };
    let _turn = live.button.lock().await;
    let text: String = label.chars().take(MAX_TEXT).collect();
    let mut policy = live.connection.policy();
    let (time, had_before) = loop {
        let had_before = policy.borrow().as_ref().is_some_and(|state| state.is_agreed(class));
        match live.connection.request_consent(class, &text).await {
            Ok(time) => break (time, had_before),
            Err(error) if is_unknown_action(&error) => return Ok(no_button(&error.to_string())),
            Err(OperatorError::Refused { problem, what }) => match ProblemKind::of(&problem) {
                Some(ProblemKind::Unsupported) => return Ok(no_button(&problem.detail)),
                // the connector asks for consent to something else, for a bounded time
                Some(ProblemKind::Busy) => {
                    let has_asked =
                        policy.wait_for(|state| state.as_ref().is_none_or(|one| one.asking.is_none()));
                    if has_asked.await.is_err() {
                        return Err(OperatorError::Refused { problem, what }.into());
                    }
                }
                _ => return Err(OperatorError::Refused { problem, what }.into()),
            },
            Err(error) => return Err(error.into()),
        }
    };
    let wait = ConsentWait { class, time, had_before };
    match wait.outcome(&mut policy, live.connection.state()).await? {
        ConsentOutcome::Agreed => Ok(Press::Pressed),
        ConsentOutcome::Refused => {
            Err(Status::permission_denied("the person at the vehicle refused to continue"))
        }
        ConsentOutcome::NoAnswer => Err(Status::deadline_exceeded(format!(
            "nobody pressed the connector's button within {} s",
            time.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::proto::{Continue, YesNo};
    use super::*;

    #[test]
    fn the_button_answers_what_a_mechanic_has_to_confirm() {
        let to_continue = ControlType::ControlContinue(Continue { label: "Go on".to_owned() });
        let yes_no = ControlType::ControlYesno(YesNo { label: "Go on".to_owned(), answer: None });
        for (target, control_type, expected) in [
            (InterfaceType::InterfaceUser, &to_continue, Some("Go on")),
            (InterfaceType::InterfaceUndefined, &to_continue, Some("Go on")),
            (InterfaceType::InterfaceOperator, &to_continue, None),
            (InterfaceType::InterfaceUser, &yes_no, None),
        ] {
            let control = Control {
                target: target as i32,
                control_type: Some(control_type.clone()),
                ..Control::default()
            };
            assert_eq!(label(&control), expected, "{control:?}");
        }
    }

    #[test]
    fn a_press_consents_to_nothing_that_needs_consent() {
        for (require, expected) in [
            (json!({}), Some("read")),
            (json!({"read": ["not-moving"], "programming": ["consent"]}), Some("read")),
            (json!({"read": ["consent"]}), Some("session")),
            (json!({"read": ["consent"], "session": ["not-moving", "consent"]}), None),
        ] {
            let policy = serde_json::from_value(json!({"mode": "enforce", "require": require})).unwrap();
            assert_eq!(class(&policy), expected, "{require}");
        }
    }
}
