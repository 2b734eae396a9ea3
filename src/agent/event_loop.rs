//! The agent's loop. Each turn:
//!
//! 1. waits for the next event of the websocket, the connection, the board, the VIN watch, the background
//!    requests, the process or the clock, and handles it;
//! 2. sends the connection's text messages, closes the connection if it has ended, and records the policy's audit;
//! 3. checks ignition and supply voltage;
//! 4. shows the state on the LED.
//!
//! A binary message is built only when the websocket can take it, so that every record that has arrived by
//! then shares the message.

use std::task::{Context, Poll};

use connector_hal::board::BoardEvent;
use connector_hal::clock::now;
use tokio::sync::mpsc;

use super::background::BackgroundAnswer;
use super::kept_vin::KeptVin;
use super::messages::ConnectorHello;
use super::notify::Notifier;
use super::setup::{Control, Setup};
use super::supervisor::Supervisor;
use super::vin_watch::{Found, WatchStart};
use crate::cloud::websocket::{OutgoingMessage, SocketEvent};
use crate::relay::connection::CloseReason;
use crate::relay::wire::Envelope;

/// Poll the quiet sources first once every this many turns, so that they cannot starve. The value is a
/// compromise: such a turn costs time that a flood of frames needs, and a turn takes far less than a
/// millisecond.
const QUIET_SOURCES_TURN: u32 = 64;

/// Why [`Supervisor::run`] returned.
pub(super) enum RunEnd {
    /// The process asked for it.
    Control(Control),
    /// The agent has slept and woken. It starts again with these parts.
    Woken(Box<Woken>),
}

/// The parts of an agent that has slept and woken.
pub(super) struct Woken {
    pub(super) setup: Setup,
    pub(super) notifier: Notifier,
    pub(super) start: WatchStart,
    pub(super) kept_vin: Option<KeptVin>,
}

/// An event of the loop.
enum LoopEvent {
    Socket(SocketEvent),
    /// The connection has advanced, and may have messages to send.
    Connection,
    Board(BoardEvent),
    Found(Found),
    Background(BackgroundAnswer),
    Control(Control),
    Deadline,
}

impl Supervisor {
    /// Runs until the process asks for an end, or until the agent has slept and woken.
    pub(super) async fn run(mut self, control: &mut mpsc::Receiver<Control>) -> RunEnd {
        self.notifier.report_ready();
        let end = loop {
            self.show_state();
            let event = std::future::poll_fn(|cx| self.poll_next(cx, control)).await;
            match event {
                LoopEvent::Socket(event) => self.handle_socket(event).await,
                LoopEvent::Connection => {}
                LoopEvent::Board(event) => self.handle_board(event),
                LoopEvent::Found(Found::Vin { report, doubt }) => self.handle_found_vin(&report, doubt),
                // reported only while the agent sleeps
                LoopEvent::Found(Found::Activity) => {}
                LoopEvent::Background(answer) => self.handle_background(answer),
                LoopEvent::Control(control) => self.handle_control(control),
                LoopEvent::Deadline => self.handle_deadline(),
            }
            self.update_consent();
            self.update_connection().await;
            self.record_audit();
            if self.update_power().await {
                return self.sleep(control).await;
            }
            if let Some(control) = self.poll_end() {
                break control;
            }
        };
        self.shut_down(CloseReason::Shutdown).await;
        RunEnd::Control(end)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, control: &mut mpsc::Receiver<Control>) -> Poll<LoopEvent> {
        if let Poll::Ready(command) = control.poll_recv(cx) {
            // the process has dropped its end: shut down
            return Poll::Ready(LoopEvent::Control(command.unwrap_or(Control::Shutdown)));
        }
        let order = &mut self.poll_order;
        order.turn = order.turn.wrapping_add(1);
        if order.turn.is_multiple_of(QUIET_SOURCES_TURN)
            && let Poll::Ready(event) = self.poll_quiet_sources(cx)
        {
            return Poll::Ready(event);
        }
        // Websocket and connection take turns, so that neither a flood of messages nor a busy bus starves the
        // other.
        self.poll_order.is_connection_first = !self.poll_order.is_connection_first;
        let (first, second): (PollSource, PollSource) = if self.poll_order.is_connection_first {
            (Self::poll_connection, Self::poll_socket)
        } else {
            (Self::poll_socket, Self::poll_connection)
        };
        if let Poll::Ready(event) = first(self, cx) {
            return Poll::Ready(event);
        }
        if let Poll::Ready(event) = second(self, cx) {
            return Poll::Ready(event);
        }
        self.poll_quiet_sources(cx)
    }

    fn poll_socket(&mut self, cx: &mut Context<'_>) -> Poll<LoopEvent> {
        let wants_to_send =
            self.connection.as_ref().is_some_and(|connection| connection.relay.wants_to_send(now()));
        self.socket.set_busy(self.connection.is_some());
        self.reporting.set_busy(self.connection.is_some());
        self.socket.poll_event(cx, wants_to_send).map(LoopEvent::Socket)
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<LoopEvent> {
        let Some(connection) = &mut self.connection else { return Poll::Pending };
        connection.relay.poll_drive(cx).map(|()| LoopEvent::Connection)
    }

    /// Polls all sources but websocket and connection, which are busier by far.
    fn poll_quiet_sources(&mut self, cx: &mut Context<'_>) -> Poll<LoopEvent> {
        if let Poll::Ready(event) = self.setup.board.poll_event(cx) {
            return Poll::Ready(LoopEvent::Board(event));
        }
        if let Poll::Ready(Some(found)) = self.watch.poll_found(cx) {
            return Poll::Ready(LoopEvent::Found(found));
        }
        if let Poll::Ready(answer) = self.background.poll_answer(cx) {
            return Poll::Ready(LoopEvent::Background(answer));
        }
        let deadlines = [
            Some(self.reporting.poll_timeout()),
            self.connection.as_ref().and_then(|connection| connection.relay.poll_timeout(now())),
            self.returns.poll_timeout(now()),
            self.notifier.poll_timeout(),
            self.power.poll_timeout(),
            self.ending.poll_timeout(self.open_work()),
            self.buzzer.poll_timeout(),
            self.consent_due(),
        ];
        self.deadline.set(deadlines.into_iter().flatten().min());
        self.deadline.poll_expired(cx).map(|()| LoopEvent::Deadline)
    }

    async fn handle_socket(&mut self, event: SocketEvent) {
        match event {
            SocketEvent::Up => self.handle_socket_up(),
            SocketEvent::Text(text) => self.handle_text(&text).await,
            SocketEvent::LongText { len, max } => self.refuse_long_text(len, max),
            SocketEvent::Binary(message) => {
                if let Some(connection) = &mut self.connection {
                    connection.relay.handle_message(now(), &message);
                }
            }
            SocketEvent::Writable => self.send_binary(),
            SocketEvent::TooLong { len, max } => self.handle_too_long(len, max),
            SocketEvent::Down(_) => self.handle_socket_down(),
        }
    }

    fn send_binary(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(message) = connection.relay.poll_message(now()) {
            // a message that cannot be sent is kept, and sent again when the connection is resumed
            let _kept_for_resumption = self.socket.send(OutgoingMessage::Binary(message));
        }
    }

    fn handle_socket_up(&mut self) {
        self.reporting.handle_link();
        let Self { setup, connection, .. } = self;
        let held = connection.as_ref().map(|connection| &connection.relay);
        let hello = ConnectorHello::new(&setup.config, &setup.hardware, setup.board.has_wifi(), held);
        let hello = Envelope::new("connectorHello", &hello);
        self.send(&hello);
        if let Some(connection) = &mut self.connection {
            connection.relay.handle_link_back(now());
        }
        if let Some(closed) = self.unreported_end.take() {
            self.send(&closed);
        }
        if std::mem::take(&mut self.attention.is_unsent) {
            self.send_call();
        }
        self.report_status();
        self.check_ticket();
    }

    /// A message is too long to be received, so that the link is about to drop. The connection ends with the link:
    /// otherwise the operator would resume the connection and send the same message again, without end.
    fn handle_too_long(&mut self, len: usize, max: usize) {
        if let Some(connection) = &mut self.connection {
            tracing::warn!(
                "a message of {len} bytes cannot be received (at most {max}); closing the connection"
            );
            connection.relay.close(CloseReason::Overflow);
        }
    }

    fn handle_socket_down(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.relay.interrupt(now());
        }
        // The senders of these requests cannot be answered any more, and send them again if they still want
        // an answer.
        self.waiting_for_vin.clear();
    }

    fn handle_deadline(&mut self) {
        let now = now();
        self.notifier.handle_timeout(now);
        if let Some(connection) = &mut self.connection {
            connection.relay.handle_timeout(now);
        }
        let voltage = self.setup.board.voltage();
        // also without a connection: a voltage that was low suffices again only after some time
        self.policy.with(|policy| policy.handle_voltage(now, voltage));
        if self.reporting.poll_report(now, voltage) {
            self.report_status();
        }
    }
}

type PollSource = fn(&mut Supervisor, &mut Context<'_>) -> Poll<LoopEvent>;
