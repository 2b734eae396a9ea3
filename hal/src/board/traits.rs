//! The board as the agent sees it.

use std::task::{Context, Poll};
use std::time::Duration;

use super::activation::ActivationLine;

/// What the LED shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Led {
    /// Dark.
    Off,
    /// Lit.
    On,
    /// Lit and dark in turns.
    Blink {
        /// How long it is lit.
        on: Duration,
        /// How long it is dark.
        off: Duration,
    },
}

/// What happened on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoardEvent {
    /// Terminal 15 changed; `None` when it can no longer be told.
    Ignition(Option<bool>),
    /// The button was pressed.
    Button,
}

/// The board, owned by one task.
///
/// Whatever the board does not have is `None` to read and without effect to set; a fault of the hardware is logged
/// once and then reads as absent, since none of it may stop a diagnostic session.
pub trait Board: Send {
    /// The vehicle's supply voltage, in volts.
    fn voltage(&mut self) -> Option<f32>;

    /// Whether the ignition (terminal 15) is on.
    fn ignition(&mut self) -> Option<bool>;

    /// Whether the device has Wi-Fi.
    fn has_wifi(&self) -> Option<bool>;

    /// Sets the LED's pattern; the board keeps it going.
    fn set_led(&mut self, led: Led);

    /// Switches the buzzer.
    fn set_buzzer(&mut self, on: bool);

    /// The line that wakes a vehicle's DoIP gateway, where the board has one.
    fn doip_activation(&self) -> Option<ActivationLine> {
        None
    }

    /// The next event; pending for ever where nothing can happen.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<BoardEvent>;
}

/// The asynchronous face of [`Board`]; cancel-safe.
pub trait BoardExt: Board {
    /// Waits for the next event.
    fn event(&mut self) -> impl Future<Output = BoardEvent> + Send {
        std::future::poll_fn(|cx| self.poll_event(cx))
    }
}

impl<B: Board + ?Sized> BoardExt for B {}
