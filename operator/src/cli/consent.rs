//! The subcommand `consent`, and the state of the connector's policy on standard error.

use std::time::Duration;

use connector_agent::cli::clean;
use connector_agent::relay::wire::ProblemKind;
use connector_agent::{print_error_line, print_line};
use tokio::sync::watch;

use super::failure::{Failure, FailureKind};
use crate::client::{Connection, ConsentOutcome, ConsentWait, OperatorError, PolicyView};

/// Prints each change of the policy's state, one line each. Never returns.
pub(super) async fn show_policy(mut policy: watch::Receiver<Option<PolicyView>>) {
    let mut shown: Option<PolicyView> = None;
    loop {
        let state = policy.borrow_and_update().clone();
        if let Some(state) = state
            && shown.as_ref().is_none_or(|shown| !shown.is_alike(&state))
        {
            print_error_line!("  {state}");
            shown = Some(state);
        }
        if policy.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Asks the person at the vehicle for consent to requests of this class, and waits for the outcome.
pub(super) async fn ask(connection: &Connection, class: &str, text: &str) -> Result<(), Failure> {
    let mut policy = connection.policy();
    let time = match connection.request_consent(class, text).await {
        Ok(time) => time,
        Err(OperatorError::Refused { problem, .. })
            if ProblemKind::of(&problem) == Some(ProblemKind::Unsupported) =>
        {
            let what = format!("the connector cannot ask for consent: {}", clean(&problem.detail));
            let advice = "agree with the customer, and let the connector's configuration require no consent";
            return Err(Failure::new(FailureKind::Refused, what, advice));
        }
        Err(error) => return Err(error.into()),
    };
    print_error_line!("  the person at the vehicle has {} s to press the connector's button", time.as_secs());
    let wait = ConsentWait { class, time, had_before: false };
    let outcome = wait.outcome(&mut policy, connection.state()).await?;
    report(outcome, class, time)
}

fn report(outcome: ConsentOutcome, class: &str, time: Duration) -> Result<(), Failure> {
    let (what, advice) = match outcome {
        ConsentOutcome::Agreed => {
            print_line!("The person at the vehicle agreed to {class}.");
            return Ok(());
        }
        ConsentOutcome::Refused => (
            format!("the person at the vehicle refused {class}"),
            "talk to the customer before you ask again",
        ),
        ConsentOutcome::NoAnswer => (
            format!("the connector's button was not pressed within {} s", time.as_secs()),
            "tell the customer to press the connector's button when its light flashes, and ask again",
        ),
    };
    Err(Failure::new(FailureKind::Refused, what, advice))
}
