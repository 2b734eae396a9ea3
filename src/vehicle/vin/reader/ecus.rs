//! What is known of the ECUs that answer.

use std::time::Instant;

use connector_hal::can::CanId;

use crate::vehicle::vin::Service;

/// How often one ECU is asked again, having been busy or having broken off its answer.
const MAX_REPEATS: u8 = 2;
/// ECUs beyond are not listened to.
const MAX_ECUS: usize = 32;

#[derive(Debug)]
struct Ecu {
    /// The identifier of its answers.
    address: CanId,
    /// Its answer has begun.
    answering: bool,
    /// It asked for more time.
    pending_until: Option<Instant>,
    repeats: u8,
    answered: Vec<Service>,
}

/// The ECUs that answered anything, [`MAX_ECUS`] at most.
#[derive(Debug, Default)]
pub(super) struct Ecus(Vec<Ecu>);

impl Ecus {
    /// An answer begins.
    pub(super) fn answer_begins(&mut self, address: CanId) {
        if let Some(ecu) = self.of(address) {
            ecu.answering = true;
            ecu.pending_until = None;
        }
    }

    /// An answer is over, or broken off; false for an ECU that is not listened to.
    pub(super) fn answer_ends(&mut self, address: CanId) -> bool {
        let ecu = self.of(address);
        ecu.map(|ecu| ecu.answering = false).is_some()
    }

    pub(super) fn set_pending(&mut self, address: CanId, until: Instant) {
        if let Some(ecu) = self.of(address) {
            ecu.pending_until = Some(until);
        }
    }

    pub(super) fn set_answered(&mut self, address: CanId, service: Service) {
        if let Some(ecu) = self.of(address) {
            ecu.answered.push(service);
        }
    }

    pub(super) fn has_answered(&self, address: CanId, service: Service) -> bool {
        self.0.iter().any(|ecu| ecu.address == address && ecu.answered.contains(&service))
    }

    /// Counts a repeated question; false if there were enough.
    pub(super) fn may_repeat(&mut self, address: CanId) -> bool {
        let ecu = self.of(address).filter(|ecu| ecu.repeats < MAX_REPEATS);
        ecu.map(|ecu| ecu.repeats += 1).is_some()
    }

    pub(super) fn is_answering(&self, address: CanId) -> bool {
        self.0.iter().any(|ecu| ecu.address == address && ecu.answering)
    }

    pub(super) fn any_answering(&self) -> bool {
        self.0.iter().any(|ecu| ecu.answering)
    }

    /// When each ECU that asked for more time must have answered.
    pub(super) fn pending(&self) -> impl Iterator<Item = Instant> {
        self.0.iter().filter_map(|ecu| ecu.pending_until)
    }

    /// Forgets those that took too much time.
    pub(super) fn expire(&mut self, now: Instant) {
        for ecu in &mut self.0 {
            ecu.pending_until = ecu.pending_until.filter(|until| now < *until);
        }
    }

    fn of(&mut self, address: CanId) -> Option<&mut Ecu> {
        let known = self.0.iter().any(|ecu| ecu.address == address);
        if !known && self.0.len() < MAX_ECUS {
            let answered = Vec::new();
            self.0.push(Ecu { address, answering: false, pending_until: None, repeats: 0, answered });
        }
        self.0.iter_mut().find(|ecu| ecu.address == address)
    }
}
