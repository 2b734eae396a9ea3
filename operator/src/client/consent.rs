//! The outcome of a question for consent: the person at the vehicle answers with the connector's button.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::CloseReason;
use super::policy_view::PolicyView;
use super::shared::LinkState;

/// How much longer than the person is asked the outcome may take: a few round trips of a slow network.
const NETWORK: Duration = Duration::from_secs(5);

/// The outcome of a question for consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConsentOutcome {
    Agreed,
    Refused,
    NoAnswer,
}

/// The wait for the outcome of a question that was asked a moment ago.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConsentWait<'a> {
    /// The class of requests.
    pub(crate) class: &'a str,
    /// For how long the person is asked.
    pub(crate) time: Duration,
    /// Whether the person had agreed before, so that only another press counts.
    pub(crate) had_before: bool,
}

impl ConsentWait<'_> {
    /// Waits until the person has answered or the time is over.
    pub(crate) async fn outcome(
        mut self,
        policy: &mut watch::Receiver<Option<PolicyView>>,
        mut link: watch::Receiver<LinkState>,
    ) -> Result<ConsentOutcome, CloseReason> {
        let (start, mut was_asking) = (Instant::now(), false);
        loop {
            let (is_agreed, is_asking) = match policy.borrow_and_update().as_ref() {
                Some(state) => (state.is_agreed(self.class), state.asking.as_deref() == Some(self.class)),
                None => (false, false),
            };
            self.had_before &= is_agreed;
            // the connector and this program count the time from different moments
            let (has_ended, is_over) = (was_asking && !is_asking, start.elapsed() + NETWORK >= self.time);
            if is_agreed && (!self.had_before || (has_ended && !is_over)) {
                return Ok(ConsentOutcome::Agreed);
            }
            if has_ended {
                return Ok(if is_over { ConsentOutcome::NoAnswer } else { ConsentOutcome::Refused });
            }
            was_asking |= is_asking;
            if let LinkState::Closed(reason) = &*link.borrow_and_update() {
                return Err(reason.clone());
            }
            tokio::select! {
                _ = policy.changed() => {}
                _ = link.changed() => {}
                () = tokio::time::sleep_until(start + self.time + NETWORK) => return Ok(ConsentOutcome::NoAnswer),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TIME: Duration = Duration::from_secs(120);

    /// The outcome of a question after these states, each with its time in seconds.
    async fn outcome(had_before: bool, states: &[(u64, Value)]) -> Result<ConsentOutcome, CloseReason> {
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
        let wait = ConsentWait { class: "programming", time: TIME, had_before };
        tokio::select! {
            biased;
            () = reporting => panic!("it never ends"),
            outcome = wait.outcome(&mut watched, link) => outcome,
        }
    }

    fn state(asking: Option<&str>, agreed: Option<&str>) -> Value {
        let consent: Vec<Value> =
            agreed.iter().map(|class| json!({"class": class, "until": "2026-11-30T10:03:29Z"})).collect();
        json!({"mode": "enforce", "motion": "unknown", "asking": asking, "consent": consent})
    }

    #[tokio::test(start_paused = true)]
    async fn each_outcome_of_a_question_for_consent_is_distinguished() {
        let (before, asking) = (state(None, None), state(Some("programming"), None));
        let agreed = state(None, Some("programming"));
        let other = state(Some("programming"), Some("bus"));
        let after = |last: (u64, Value)| [(0, before.clone()), (1, asking.clone()), (2, other.clone()), last];
        let first = async |states: &[(u64, Value)]| outcome(false, states).await.unwrap();
        assert_eq!(first(&after((30, agreed.clone()))).await, ConsentOutcome::Agreed);
        assert_eq!(first(&after((30, before.clone()))).await, ConsentOutcome::Refused);
        assert_eq!(first(&after((120, before.clone()))).await, ConsentOutcome::NoAnswer);
        assert_eq!(first(&[(0, before.clone())]).await, ConsentOutcome::NoAnswer, "no report came");
        assert_eq!(first(&[(0, agreed)]).await, ConsentOutcome::Agreed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_consent_from_before_needs_another_press() {
        let agreed = state(None, Some("programming"));
        let asking = state(Some("programming"), Some("programming"));
        let before = [(0, agreed.clone()), (1, asking)];
        let again = async |last: &[(u64, Value)]| outcome(true, &[&before, last].concat()).await.unwrap();
        assert_eq!(again(&[(30, agreed.clone())]).await, ConsentOutcome::Agreed);
        assert_eq!(again(&[]).await, ConsentOutcome::NoAnswer);
        assert_eq!(again(&[(120, agreed.clone())]).await, ConsentOutcome::NoAnswer);
        assert_eq!(again(&[(30, state(None, None))]).await, ConsentOutcome::Refused);
        // the consent from before has ended meanwhile
        let ended = (20, state(Some("programming"), None));
        assert_eq!(again(&[ended, (30, agreed)]).await, ConsentOutcome::Agreed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_the_button_closes_ends_the_question() {
        let (_policy, mut watched) = watch::channel(None);
        let (_link, link) = watch::channel(LinkState::Closed(CloseReason::Remote("policy".to_owned())));
        let wait = ConsentWait { class: "programming", time: TIME, had_before: false };
        let reason = wait.outcome(&mut watched, link).await.unwrap_err();
        assert!(reason.describe().contains("the person at the vehicle ended the connection"), "{reason}");
    }
}
