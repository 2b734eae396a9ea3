//! A simulated board, and a handle to control it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use super::activation::ActivationLine;
use super::traits::{Board, BoardEvent, Led};

/// How many changes of the button are kept unread; further ones are ignored. A test presses the button once or
/// twice.
const MAX_BUTTON_CHANGES: usize = 32;

/// A simulated board.
pub struct SimBoard {
    state: Arc<Mutex<SimBoardState>>,
    led: watch::Sender<Led>,
    buzzer: watch::Sender<bool>,
    doip_activation: ActivationLine,
    reported_ignition: Option<bool>,
}

/// Controls a [`SimBoard`]: sets voltage and ignition, presses the button, observes LED and buzzer. Clones
/// share the board.
#[derive(Clone)]
pub struct SimBoardHandle {
    state: Arc<Mutex<SimBoardState>>,
    led: watch::Receiver<Led>,
    buzzer: watch::Receiver<bool>,
    doip_activation: watch::Receiver<bool>,
}

#[derive(Default)]
struct SimBoardState {
    voltage: Option<f32>,
    ignition: Option<bool>,
    button: VecDeque<Option<bool>>,
    waker: Option<Waker>,
}

impl SimBoard {
    /// Creates a board at 12.6 V with the ignition on and without Wi-Fi, and its handle.
    pub fn new() -> (Self, SimBoardHandle) {
        let state = SimBoardState { voltage: Some(12.6), ignition: Some(true), ..SimBoardState::default() };
        let state = Arc::new(Mutex::new(state));
        let (led, led_seen) = watch::channel(Led::Off);
        let (buzzer, buzzer_heard) = watch::channel(false);
        let (activation, doip_activation) = watch::channel(false);
        let line = ActivationLine::new(move |on| {
            activation.send_replace(on);
        });
        let state_seen = Arc::clone(&state);
        let handle =
            SimBoardHandle { state: state_seen, led: led_seen, buzzer: buzzer_heard, doip_activation };
        (Self { state, led, buzzer, doip_activation: line, reported_ignition: Some(true) }, handle)
    }
}

impl SimBoardHandle {
    /// Sets the supply voltage; `None` if it cannot be measured.
    pub fn set_voltage(&self, volts: Option<f32>) {
        lock(&self.state).voltage = volts;
    }

    /// Switches the ignition; `None` if its state is unknown.
    pub fn set_ignition(&self, on: Option<bool>) {
        self.change(|state| state.ignition = on);
    }

    /// Presses the button once, and releases it.
    pub fn press_button(&self) {
        self.set_button(Some(true));
        self.set_button(Some(false));
    }

    /// Presses or releases the button; `None` if it cannot be read.
    pub fn set_button(&self, pressed: Option<bool>) {
        self.change(|state| {
            if state.button.len() < MAX_BUTTON_CHANGES {
                state.button.push_back(pressed);
            }
        });
    }

    /// Observes the LED.
    pub fn led(&self) -> watch::Receiver<Led> {
        self.led.clone()
    }

    /// Observes the buzzer.
    pub fn buzzer(&self) -> watch::Receiver<bool> {
        self.buzzer.clone()
    }

    /// Observes the line that wakes the vehicle's DoIP gateway.
    pub fn doip_activation(&self) -> watch::Receiver<bool> {
        self.doip_activation.clone()
    }

    fn change(&self, action: impl FnOnce(&mut SimBoardState)) {
        let mut state = lock(&self.state);
        action(&mut state);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }
}

fn lock(state: &Mutex<SimBoardState>) -> MutexGuard<'_, SimBoardState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board for SimBoard {
    fn voltage(&mut self) -> Option<f32> {
        lock(&self.state).voltage
    }

    fn ignition(&mut self) -> Option<bool> {
        lock(&self.state).ignition
    }

    fn has_wifi(&self) -> Option<bool> {
        Some(false)
    }

    fn set_led(&mut self, led: Led) {
        self.led.send_replace(led);
    }

    fn set_buzzer(&mut self, on: bool) {
        self.buzzer.send_replace(on);
    }

    fn doip_activation(&self) -> Option<ActivationLine> {
        Some(self.doip_activation.clone())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<BoardEvent> {
        let mut state = lock(&self.state);
        if state.ignition != self.reported_ignition {
            self.reported_ignition = state.ignition;
            return Poll::Ready(BoardEvent::Ignition(state.ignition));
        }
        if let Some(pressed) = state.button.pop_front() {
            return Poll::Ready(BoardEvent::Button(pressed));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::super::traits::BoardExt;
    use super::*;

    #[tokio::test]
    async fn the_board_reports_the_actions_of_its_handle() {
        let (mut board, handle) = SimBoard::new();
        handle.set_ignition(Some(false));
        assert_eq!(board.event().await, BoardEvent::Ignition(Some(false)));
        handle.set_ignition(None);
        assert_eq!(board.event().await, BoardEvent::Ignition(None));
        handle.set_voltage(Some(11.9));
        assert_eq!(board.voltage(), Some(11.9));
    }

    #[tokio::test]
    async fn press_and_release_of_the_button_wake_the_waiting_task() {
        let (mut board, handle) = SimBoard::new();
        let waiting = tokio::spawn(async move { [board.event().await, board.event().await] });
        tokio::task::yield_now().await;
        handle.set_button(Some(true));
        tokio::task::yield_now().await;
        handle.set_button(Some(false));
        assert_eq!(waiting.await.unwrap(), [BoardEvent::Button(Some(true)), BoardEvent::Button(Some(false))]);
    }

    #[tokio::test]
    async fn the_handle_sees_the_outputs_of_the_board() {
        let (mut board, handle) = SimBoard::new();
        let (mut led, mut buzzer) = (handle.led(), handle.buzzer());
        board.set_led(Led::On);
        board.set_buzzer(true);
        led.changed().await.unwrap();
        buzzer.changed().await.unwrap();
        assert_eq!((*led.borrow(), *buzzer.borrow()), (Led::On, true));
    }
}
