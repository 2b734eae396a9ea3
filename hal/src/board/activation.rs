//! The activation line, which wakes a vehicle's DoIP gateway: pin 8 of the OBD connector (ISO 13400-3).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The activation line. Clones share the line. The line is on while an [`Activation`] exists.
#[derive(Clone)]
pub struct ActivationLine(Arc<Mutex<ActivationState>>);

struct ActivationState {
    holders: usize,
    set: Box<dyn FnMut(bool) + Send>,
}

/// Keeps the activation line on until dropped.
#[must_use = "dropping this switches the line off"]
pub struct Activation(ActivationLine);

impl ActivationLine {
    /// Creates a line that is off; `set` switches it.
    pub fn new(set: impl FnMut(bool) + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(ActivationState { holders: 0, set: Box::new(set) })))
    }

    /// Switches the line on until the result is dropped.
    pub fn activate(&self) -> Activation {
        self.change(|holders| holders.saturating_add(1));
        Activation(self.clone())
    }

    fn change(&self, change: impl Fn(usize) -> usize) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = shared.holders;
        shared.holders = change(before);
        let is_on = shared.holders > 0;
        if (before > 0) != is_on {
            tracing::debug!(is_on, "DoIP activation line switched");
            (shared.set)(is_on);
        }
    }
}

impl Drop for Activation {
    fn drop(&mut self) {
        self.0.change(|holders| holders.saturating_sub(1));
    }
}

impl fmt::Debug for ActivationLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ActivationLine")
    }
}

impl fmt::Debug for Activation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Activation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_activation_line_is_on_while_any_holder_exists() {
        let switched = Arc::new(Mutex::new(Vec::new()));
        let seen = switched.clone();
        let line = ActivationLine::new(move |on| seen.lock().unwrap().push(on));
        let (first, second) = (line.activate(), line.clone().activate());
        drop(first);
        assert_eq!(*switched.lock().unwrap(), [true]);
        drop(second);
        assert_eq!(*switched.lock().unwrap(), [true, false]);
        drop(line.activate());
        assert_eq!(*switched.lock().unwrap(), [true, false, true, false]);
    }
}
