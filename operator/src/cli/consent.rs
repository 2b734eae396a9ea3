//! The subcommand `consent`, and the state of the connector's policy on standard error.

use std::time::Duration;

use connector_agent::cli::clean;
use connector_agent::relay::wire::ProblemKind;
use connector_agent::{print_error_line, print_line};
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::{Failure, FailureKind};
use crate::client::{Connection, LinkState, OperatorError, PolicyView};

/// How much longer than the person is asked the outcome may take: a few round trips of a slow network.
const NETWORK: Duration = Duration::from_secs(5);

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
    let outcome = wait(&mut policy, connection.state(), class, time).await?;
    outcome.report(class, time)
}

/// The outcome of a question for consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Agreed,
    Refused,
    NoAnswer,
}

impl Outcome {
    fn report(self, class: &str, time: Duration) -> Result<(), Failure> {
        let (what, advice) = match self {
            Self::Agreed => {
                print_line!("The person at the vehicle agreed to {class}.");
                return Ok(());
            }
            Self::Refused => (
                format!("the person at the vehicle refused {class}"),
                "talk to the customer before you ask again",
            ),
            Self::NoAnswer => (
                format!("the connector's button was not pressed within {} s", time.as_secs()),
                "tell the customer to press the connector's button when its light flashes, and ask again",
            ),
        };
        Err(Failure::new(FailureKind::Refused, what, advice))
    }
}

/// Waits for the outcome of a question that was asked a moment ago.
async fn wait(
    policy: &mut watch::Receiver<Option<PolicyView>>,
    mut link: watch::Receiver<LinkState>,
    class: &str,
    time: Duration,
) -> Result<Outcome, Failure> {
    let start = Instant::now();
    let mut was_asking = false;
    loop {
        let (is_agreed, is_asking) = match policy.borrow_and_update().as_ref() {
            Some(state) => (state.is_agreed(class), state.asking.as_deref() == Some(class)),
            None => (false, false),
        };
        if is_agreed {
            return Ok(Outcome::Agreed);
        }
        if was_asking && !is_asking {
            // the connector and this program count the time from different moments
            let is_over = start.elapsed() + NETWORK >= time;
            return Ok(if is_over { Outcome::NoAnswer } else { Outcome::Refused });
        }
        was_asking |= is_asking;
        if let LinkState::Closed(reason) = &*link.borrow_and_update() {
            return Err(reason.clone().into());
        }
        tokio::select! {
            _ = policy.changed() => {}
            _ = link.changed() => {}
            () = tokio::time::sleep_until(start + time + NETWORK) => return Ok(Outcome::NoAnswer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::client::CloseReason;

    const TIME: Duration = Duration::from_secs(120);

    /// The outcome of a question after these states, each with its time in seconds.
    async fn outcome(states: &[(u64, Value)]) -> Result<Outcome, Failure> {
        let (policy, mut watched) = watch::channel(None);
        let (_link, link) = watch::channel(LinkState::Up);
        let reporting = async {
            let start = Instant::now();
            for (at, state) in states {
                tokio::time::sleep_until(start + Duration::from_secs(*at)).await;
                policy.send_replace(Some(serde_json::from_value(state.clone()).unwrap()));
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = wait(&mut watched, link, "programming", TIME) => outcome,
            () = reporting => panic!("it never ends"),
        }
    }

    fn state(asking: Option<&str>, agreed: Option<&str>) -> Value {
        let consent: Vec<Value> =
            agreed.iter().map(|class| json!({"class": class, "until": "2026-11-30T10:03:29Z"})).collect();
        json!({"mode": "enforce", "motion": "unknown", "asking": asking, "consent": consent})
    }

    #[tokio::test(start_paused = true)]
    async fn each_outcome_of_a_question_for_consent_has_its_text() {
        let (before, asking) = (state(None, None), state(Some("programming"), None));
        let agreed = state(None, Some("programming"));
        let other = state(Some("programming"), Some("bus"));
        let after = |last: (u64, Value)| [(0, before.clone()), (1, asking.clone()), (2, other.clone()), last];
        assert_eq!(outcome(&after((30, agreed.clone()))).await.unwrap(), Outcome::Agreed);
        assert_eq!(outcome(&after((30, before.clone()))).await.unwrap(), Outcome::Refused);
        assert_eq!(outcome(&after((120, before.clone()))).await.unwrap(), Outcome::NoAnswer);
        assert_eq!(outcome(&[(0, before.clone())]).await.unwrap(), Outcome::NoAnswer, "no report came");
        assert_eq!(outcome(&[(0, agreed)]).await.unwrap(), Outcome::Agreed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_the_button_closes_ends_the_question() {
        let (_policy, mut watched) = watch::channel(None);
        let (_link, link) = watch::channel(LinkState::Closed(CloseReason::Remote("policy".to_owned())));
        let failure = wait(&mut watched, link, "programming", TIME).await.unwrap_err();
        assert!(failure.to_string().contains("the person at the vehicle ended the connection"), "{failure}");
    }
}
