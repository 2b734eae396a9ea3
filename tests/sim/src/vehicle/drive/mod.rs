//! How the vehicle drives: its speed and its engine, as all ECUs report them.

mod args;
mod broadcast;
mod command;
mod script;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_hal::timer::{Deadline, TimerKind};

pub(crate) use args::DriveArgs;
pub use broadcast::SpeedBroadcast;
pub(super) use broadcast::broadcast;
pub use command::DriveCommand;
pub use script::DriveScript;

/// The time between two speeds of a script.
const TICK: Duration = Duration::from_millis(100);
/// The speed of an engine that drives nothing, in revolutions per minute.
const IDLE: f32 = 800.0;
/// Revolutions per minute for each km/h.
const GEAR: f32 = 30.0;

/// The speed and the engine of one vehicle. Clones belong to the same vehicle.
#[derive(Debug, Clone)]
pub struct Drive(Arc<Mutex<DriveState>>);

#[derive(Debug, Clone, Copy)]
struct DriveState {
    kmh: f32,
    is_engine_on: bool,
    has_abs: bool,
}

impl Default for Drive {
    /// A vehicle that stands, with its engine off.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(DriveState { kmh: 0.0, is_engine_on: false, has_abs: true })))
    }
}

impl PartialEq for Drive {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Drive {}

impl Drive {
    fn state(&self) -> MutexGuard<'_, DriveState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives at this speed, in km/h. A vehicle that drives has its engine on; one that stands keeps it on.
    pub fn set_speed(&self, kmh: f32) {
        let mut state = self.state();
        state.kmh = kmh.max(0.0);
        state.is_engine_on |= kmh > 0.0;
    }

    /// Switches the engine on or off.
    pub fn set_engine(&self, on: bool) {
        self.state().is_engine_on = on;
    }

    /// Loses the brake controller, or gets it back. Without it, the speed is neither broadcast nor reported.
    pub fn set_abs(&self, works: bool) {
        self.state().has_abs = works;
    }

    /// The speed in km/h, as long as the brake controller reports it.
    pub fn speed(&self) -> Option<f32> {
        let state = *self.state();
        state.has_abs.then_some(state.kmh)
    }

    /// The speed in one byte, as OBD reports it (SAE J1979, PID 0D).
    pub(super) fn obd_speed(&self) -> Option<u8> {
        // a conversion of floats saturates
        self.speed().map(|kmh| kmh.round() as u8)
    }

    /// The engine's speed, as OBD reports it: a quarter of a revolution per minute (SAE J1979, PID 0C).
    pub(super) fn obd_engine_speed(&self) -> [u8; 2] {
        let state = *self.state();
        let rpm = if state.is_engine_on { IDLE + GEAR * state.kmh } else { 0.0 };
        ((rpm * 4.0) as u16).to_be_bytes()
    }

    /// Whether the engine is on.
    pub fn is_engine_on(&self) -> bool {
        self.state().is_engine_on
    }

    /// Drives as the script says, until its end.
    pub async fn follow(&self, script: &DriveScript, timer: TimerKind) {
        let mut deadline = Deadline::new(timer);
        let start = timer.now();
        loop {
            let elapsed = timer.now().saturating_duration_since(start);
            script.apply(elapsed, self);
            if elapsed >= script.end() {
                return;
            }
            deadline.set(Some(timer.now() + TICK));
            deadline.expired().await;
        }
    }
}
