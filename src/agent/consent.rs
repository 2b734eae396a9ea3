//! The policy beside the vehicle as the agent serves it: the answers of the person at the vehicle.

use std::time::Instant;

use connector_hal::clock::now;

use super::supervisor::Supervisor;
use crate::policy::{ConsentEvent, Policy};
use crate::protocol::vin::Vin;
use crate::relay::connection::CloseReason;

impl Supervisor {
    /// Logs what has become of consent, reports it to the operator, and closes a connection after a no.
    pub(super) fn update_consent(&mut self) {
        while self.handle_consent() {
            if let Some(connection) = &mut self.connection {
                connection.relay.handle_timeout(now());
            }
        }
    }

    /// Handles what has become of consent. Returns whether anything has.
    fn handle_consent(&mut self) -> bool {
        let mut has_changed = false;
        while let Some(event) = self.policy.with(Policy::poll_consent) {
            has_changed = true;
            tracing::info!("{}", describe(event));
            if event == ConsentEvent::Revoked
                && let Some(connection) = &mut self.connection
            {
                connection.relay.close(CloseReason::Policy);
            }
        }
        has_changed
    }

    /// Reports the vehicle's VIN to the policy, and whether the vehicle has confirmed the connection's.
    pub(super) fn report_vin_to_policy(&self) {
        let is_confirmed =
            self.connection.as_ref().is_some_and(|connection| connection.relay.is_vin_confirmed());
        let vin = self.vehicle.vin.as_ref().map(Vin::as_str);
        self.policy.with(|policy| policy.handle_vin(vin, is_confirmed));
    }

    /// When [`Supervisor::update_consent`] is due without another event.
    pub(super) fn consent_due(&self) -> Option<Instant> {
        self.policy.with(|policy| policy.has_consent_event()).then(now)
    }
}

/// The event as a sentence for a mechanic.
fn describe(event: ConsentEvent) -> String {
    match event {
        ConsentEvent::Asked(class) => format!(
            "the operator wants consent to {}: press the button briefly to agree, or for 3 s to refuse",
            class.act()
        ),
        ConsentEvent::Given(class) => {
            format!("consent to {} is given, by the button or the ticket", class.act())
        }
        ConsentEvent::Unanswered(class) => {
            format!("the button was not pressed in time: there is no consent to {}", class.act())
        }
        ConsentEvent::Revoked => {
            "the button was pressed for 3 s: every consent is revoked, and the connection is closed"
                .to_owned()
        }
        ConsentEvent::Ended(class) => format!("consent to {} has ended", class.act()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Class;

    #[test]
    fn each_event_of_consent_is_one_sentence_that_names_the_act() {
        let events: [fn(Class) -> ConsentEvent; 4] =
            [ConsentEvent::Asked, ConsentEvent::Given, ConsentEvent::Unanswered, ConsentEvent::Ended];
        for class in Class::ALL {
            for event in events.map(|event| event(class)) {
                let text = describe(event);
                assert!(text.contains(class.act()) && !text.contains('.'), "{text}");
            }
        }
    }
}
