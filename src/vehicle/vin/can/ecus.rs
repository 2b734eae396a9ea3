//! The ECUs that answer.

use std::time::Instant;

use connector_hal::can::CanId;

use crate::vehicle::vin::answer::Service;

/// The number of times that one ECU is asked again because it was busy or broke off its answer. More would
/// take the budget from the ECUs that are asked later.
const MAX_REPEATS: u8 = 2;
/// Further ECUs are ignored. A vehicle has fewer ECUs that answer a request for the VIN; the limit bounds the
/// memory and the flow controls on the bus.
const MAX_ECUS: usize = 32;

#[derive(Debug)]
struct Ecu {
    /// The identifier of its answers.
    address: CanId,
    /// An answer has begun.
    answering: bool,
    /// The ECU sent response pending; its answer must begin until this time.
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

    /// An answer is complete or broken off; false for an ECU that is ignored.
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

    /// Counts a repeated question; false if the ECU was asked often enough.
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

    /// The times until which ECUs that sent response pending must answer.
    pub(super) fn pending(&self) -> impl Iterator<Item = Instant> {
        self.0.iter().filter_map(|ecu| ecu.pending_until)
    }

    /// Forgets the ECUs whose time for an answer is over.
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
