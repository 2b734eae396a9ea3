//! The interface of every board.

use std::task::{Context, Poll};
use std::time::Duration;

use super::activation::ActivationLine;

/// The pattern of the LED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Led {
    /// The LED is dark.
    Off,
    /// The LED is lit.
    On,
    /// The LED blinks.
    Blink {
        /// How long the LED is lit.
        on: Duration,
        /// How long the LED is dark.
        off: Duration,
    },
    /// The LED flashes several times, and then pauses.
    Flashes {
        /// The number of flashes before each pause.
        count: u8,
        /// How long each flash is.
        on: Duration,
        /// How long the LED is dark between two flashes.
        off: Duration,
        /// How long the LED is dark after the last flash.
        pause: Duration,
    },
}

/// An event of the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoardEvent {
    /// Terminal 15 changed; `None` if its state can no longer be read.
    Ignition(Option<bool>),
    /// The button was pressed (`Some(true)`) or released (`Some(false)`); `None` if it can no longer be read.
    Button(Option<bool>),
}

/// A board, owned by one task.
///
/// A part that the board does not have reads as `None`, and setting it has no effect. A hardware fault is
/// logged once and then reads as an absent part: no fault of the board may stop a diagnostic session.
pub trait Board: Send {
    /// The vehicle's supply voltage, in volts.
    fn voltage(&mut self) -> Option<f32>;

    /// Whether the ignition (terminal 15) is on.
    fn ignition(&mut self) -> Option<bool>;

    /// Whether the device has Wi-Fi.
    fn has_wifi(&self) -> Option<bool>;

    /// Sets the LED's pattern, which the board repeats by itself.
    fn set_led(&mut self, led: Led);

    /// Switches the buzzer.
    fn set_buzzer(&mut self, on: bool);

    /// The line that wakes a vehicle's DoIP gateway, if the board has one.
    fn doip_activation(&self) -> Option<ActivationLine> {
        None
    }

    /// The next event.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<BoardEvent>;
}

/// Asynchronous methods of every [`Board`]; cancel-safe.
pub trait BoardExt: Board {
    /// Waits for the next event.
    fn event(&mut self) -> impl Future<Output = BoardEvent> + Send {
        std::future::poll_fn(|cx| self.poll_event(cx))
    }
}

impl<B: Board + ?Sized> BoardExt for B {}
