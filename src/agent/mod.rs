//! The agent: one task that owns the link to the cloud, the diagnostic session and the board, and decides what each
//! event means for the others.
//!
//! Round the loop: 1. wait for the first of link, session, board, VIN, background answers, control and deadline;
//! 2. let its handler decide; 3. send what the session has to say; 4. show the state on the LED. A binary message is
//! only built when the socket can take it, so that what came in the meantime shares it.

mod connection;
mod messages;
mod notify;
mod power;
mod requests;
mod signal;
mod sleep;
mod surroundings;
mod vin_watch;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::board::{Board, BoardEvent, Led};
use connector_hal::timer::{Deadline, TimerKind};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cloud::Cloud;
use crate::cloud::CloudStatus;
use crate::cloud::login::{Authenticator, KeptLogin};
use crate::cloud::rest::{ActiveTicket, Rest, RestError};
use crate::cloud::websocket::{Link, LinkEvent, LinkSettings, Outgoing};
use crate::config::{Config, Pincode};
use crate::protocol::vin::Vin;
use crate::relay::connection::{CloseReason, Session};
use crate::relay::wire::Envelope;
use crate::relay::wire::request::OpenConnection;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::wake_watch::WakeWatch;
use messages::{Hello, StatusUpdate, whole_milliseconds};
use notify::Notifier;
use power::PowerWatch;
use signal::Shown;
use vin_watch::{Found, VinWatch};

/// Every so many turns of the loop, what is not link or session comes first.
const OTHERS_TURN: u32 = 64;
/// How often the connector reports its status.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// Answers of the cloud that may wait for the loop.
const BACKGROUND: usize = 8;

/// All that an agent is made of.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// The secret that it logs in with.
    pub pincode: Pincode,
    /// The vehicle's buses.
    pub hardware: Hardware,
    /// The board.
    pub board: Box<dyn Board>,
    /// Whom the TLS connections trust.
    pub tls: Arc<ClientConfig>,
    /// For backing off at random.
    pub seed: u64,
}

/// What the process asks of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// End: close an open connection in good order.
    Shutdown,
    /// End as soon as no connection is open, to begin anew with another configuration.
    Restart,
}

/// What cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The HTTP client could not be made.
    #[error("the cloud's client could not be set up")]
    Rest(#[from] RestError),
}

/// Runs the agent until it is told to end; says which way it was told.
pub async fn run(mut setup: Setup, control: &mut mpsc::Receiver<Control>) -> Result<Control, SetupError> {
    let mut notifier = Notifier::from_environment(now());
    loop {
        match Supervisor::new(setup, notifier)?.run(control).await {
            Ended::Told(control) => return Ok(control),
            Ended::Woken(again) => (setup, notifier) = *again,
        }
    }
}

/// How a waking life ended.
enum Ended {
    Told(Control),
    /// It slept meanwhile, and begins anew.
    Woken(Box<(Setup, Notifier)>),
}

/// What a task in the background found out.
enum Background {
    Status(CloudStatus),
    ActiveTicket { held: Option<Uuid>, ticket: Option<ActiveTicket> },
}

/// What woke the loop.
enum Wake {
    Link(LinkEvent),
    Session,
    Board(BoardEvent),
    Found(Found),
    Background(Background),
    Control(Control),
    Deadline,
}

/// What is known of the vehicle.
#[derive(Default)]
struct Vehicle {
    vin: Option<Vin>,
    /// It was read at least once.
    is_known: bool,
    /// It is being read by the watch.
    is_being_read: bool,
}

struct Supervisor {
    config: Config,
    pincode: Pincode,
    tls: Arc<ClientConfig>,
    rng: fastrand::Rng,
    uuid: Uuid,
    hardware: Hardware,
    board: Box<dyn Board>,
    link: Link,
    cloud: Cloud,
    cloud_status: CloudStatus,
    watch: VinWatch,
    background: mpsc::Receiver<Background>,
    background_sender: mpsc::Sender<Background>,
    session: Option<Session>,
    /// What the open connection's vehicle was when it was opened.
    session_vin: Option<Vin>,
    /// Whether the open connection was opened for a ticket.
    session_has_ticket: bool,
    vehicle: Vehicle,
    power: PowerWatch,
    /// PDUs that the session had relayed when the power watch last heard of it.
    pdus_relayed: u64,
    ignition_watch: WakeWatch,
    /// An `openConnection` that waits for the VIN.
    waiting_open: Option<(OpenConnection, Option<String>)>,
    /// The `identifyVehicle` requests that wait for the VIN.
    identifying: Vec<Option<String>>,
    /// A connection that ended while the link was away, and why.
    ended_unheard: Option<(Uuid, CloseReason)>,
    calls_for_attention: bool,
    call_unsent: bool,
    restart_wanted: bool,
    is_sessions_turn: bool,
    turn: u32,
    compared_record: bool,
    shown: Option<Led>,
    status_due: Instant,
    deadline: Deadline,
    notifier: Notifier,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Supervisor {
    fn new(setup: Setup, notifier: Notifier) -> Result<Self, SetupError> {
        let Setup { config, pincode, hardware, mut board, tls, seed } = setup;
        let mut rng = fastrand::Rng::with_seed(seed);
        let rest = Arc::new(Rest::new(&config.cloud, config.connector.uuid, &tls)?);
        let kept = KeptLogin::new(&config);
        let authenticator = Authenticator::resume(rest.clone(), pincode.clone(), kept, rng.u64(..));
        let cloud = Cloud::new(rest, authenticator.clone(), rng.u64(..));
        let settings = LinkSettings::new(&config.cloud, config.relay.max_pdu);
        let (background_sender, background) = mpsc::channel(BACKGROUND);
        forward_status(&authenticator, background_sender.clone());
        let link = Link::new(settings, tls.clone(), authenticator, rng.u64(..));
        let ignition = board.ignition();
        let watch = VinWatch::spawn(hardware.clone(), config.vin_settings(), ignition);
        let mut ignition_watch = WakeWatch::new(Duration::MAX, now());
        ignition_watch.handle_ignition(ignition);
        Ok(Self {
            uuid: config.connector.uuid.get(),
            power: PowerWatch::new(config.power, ignition, now()),
            pdus_relayed: 0,
            config,
            pincode,
            tls,
            rng,
            hardware,
            board,
            link,
            cloud,
            cloud_status: CloudStatus::default(),
            watch,
            background,
            background_sender,
            session: None,
            session_vin: None,
            session_has_ticket: false,
            vehicle: Vehicle { is_being_read: true, ..Vehicle::default() },
            ignition_watch,
            waiting_open: None,
            identifying: Vec::new(),
            ended_unheard: None,
            calls_for_attention: false,
            call_unsent: false,
            restart_wanted: false,
            is_sessions_turn: false,
            turn: 0,
            compared_record: false,
            shown: None,
            status_due: now(),
            deadline: Deadline::new(TimerKind::Runtime),
            notifier,
        })
    }

    async fn run(mut self, control: &mut mpsc::Receiver<Control>) -> Ended {
        self.notifier.ready();
        let ended = loop {
            self.show();
            let wake = std::future::poll_fn(|cx| self.poll_wake(cx, control)).await;
            match wake {
                Wake::Link(event) => self.handle_link(event).await,
                Wake::Session => {}
                Wake::Board(event) => self.handle_board(event),
                Wake::Found(Found::Vin(report)) => {
                    self.vehicle.is_being_read = false;
                    self.handle_vin(&report);
                }
                // told only to who sleeps
                Wake::Found(Found::Activity) => {}
                Wake::Background(found) => self.handle_background(found),
                Wake::Control(Control::Shutdown) => break Control::Shutdown,
                Wake::Control(Control::Restart) => self.restart_wanted = true,
                Wake::Deadline => self.handle_deadline(),
            }
            self.attend_session().await;
            if self.attend_power().await {
                return self.sleep(control).await;
            }
            if self.restart_wanted && self.session.is_none() {
                break Control::Restart;
            }
        };
        self.shut_down(CloseReason::Shutdown).await;
        Ended::Told(ended)
    }

    fn poll_wake(&mut self, cx: &mut Context<'_>, control: &mut mpsc::Receiver<Control>) -> Poll<Wake> {
        if let Poll::Ready(command) = control.poll_recv(cx) {
            // whoever controlled us is gone: so are we
            return Poll::Ready(Wake::Control(command.unwrap_or(Control::Shutdown)));
        }
        // they take turns, so that neither a flood of messages nor a full bus keeps the other waiting, nor all else
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(OTHERS_TURN)
            && let Poll::Ready(wake) = self.poll_others(cx)
        {
            return Poll::Ready(wake);
        }
        self.is_sessions_turn = !self.is_sessions_turn;
        let first = if self.is_sessions_turn { self.poll_session(cx) } else { self.poll_link(cx) };
        if first.is_ready() {
            return first;
        }
        let second = if self.is_sessions_turn { self.poll_link(cx) } else { self.poll_session(cx) };
        if second.is_ready() {
            return second;
        }
        self.poll_others(cx)
    }

    /// Everything but link and session, which are busier by far.
    fn poll_others(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(event) = self.board.poll_event(cx) {
            return Poll::Ready(Wake::Board(event));
        }
        if let Poll::Ready(Some(found)) = self.watch.poll_found(cx) {
            return Poll::Ready(Wake::Found(found));
        }
        if let Poll::Ready(Some(found)) = self.background.poll_recv(cx) {
            return Poll::Ready(Wake::Background(found));
        }
        let session = self.session.as_ref().and_then(Session::poll_timeout);
        let deadlines =
            [Some(self.status_due), session, self.notifier.poll_timeout(), self.power.poll_timeout()];
        self.deadline.set(deadlines.into_iter().flatten().min());
        self.deadline.poll_expired(cx).map(|()| Wake::Deadline)
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let wants_to_send = self.session.as_ref().is_some_and(|session| session.wants_to_send(now()));
        self.link.poll_event(cx, wants_to_send).map(Wake::Link)
    }

    fn poll_session(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let Some(session) = &mut self.session else { return Poll::Pending };
        session.poll_drive(cx).map(|()| Wake::Session)
    }

    fn handle_deadline(&mut self) {
        let now = now();
        self.notifier.handle_timeout(now);
        if let Some(session) = &mut self.session {
            session.handle_timeout(now);
        }
        if self.status_due <= now {
            self.report_status();
        }
    }

    async fn handle_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up => self.handle_link_up(),
            LinkEvent::Text(text) => self.handle_text(&text).await,
            LinkEvent::Binary(message) => {
                if let Some(session) = &mut self.session {
                    session.handle_message(now(), &message);
                }
            }
            LinkEvent::Writable => {
                if let Some(message) = self.session.as_mut().and_then(|session| session.poll_message(now())) {
                    // what cannot be sent after all is kept, and sent again when the connection is resumed
                    let _dropped_with_the_link = self.link.send(Outgoing::Binary(message));
                }
            }
            LinkEvent::Down(_) => {
                if let Some(session) = &mut self.session {
                    session.interrupt(now());
                }
                // nobody is there any more to be answered; who still wants it asks again
                self.waiting_open = None;
                self.identifying.clear();
            }
        }
    }

    fn handle_link_up(&mut self) {
        let hello = Hello::new(&self.config, &self.hardware, self.board.has_wifi(), self.session.as_ref());
        let hello = Envelope::new("connectorHello", &hello);
        self.send(&hello);
        if let Some(session) = &mut self.session {
            session.handle_link_back();
        }
        if let Some((connection_uuid, reason)) = self.ended_unheard.take() {
            self.tell_closed(connection_uuid, reason);
        }
        if std::mem::take(&mut self.call_unsent) {
            self.send_call();
        }
        self.report_status();
        self.reconcile();
    }

    fn report_status(&mut self) {
        self.status_due = now() + STATUS_INTERVAL;
        if !self.link.is_up() {
            return;
        }
        let update = StatusUpdate {
            connector_id: self.uuid,
            voltage: self.board.voltage(),
            vin_number: self.vehicle.vin,
            round_trip_time: self.link.round_trip_time().map(whole_milliseconds),
            ignition: self.power.ignition(),
            connection_uuid: self.session.as_ref().map(Session::connection_uuid),
            buses: self.session.as_ref().map(Session::bus_reports).unwrap_or_default(),
        };
        self.send(&Envelope::new("connectorStatusUpdate", &update));
    }

    fn send(&mut self, envelope: &Envelope) {
        // without a link there is nobody to tell: state is told anew when it is back
        let _no_link = self.link.send(Outgoing::Text(envelope.to_text()));
    }

    fn reply(&mut self, action: &str, message: &impl Serialize, request_id: Option<String>) {
        self.send(&Envelope::new(action, message).in_reply_to(request_id));
    }

    fn show(&mut self) {
        let shown = Shown {
            calls_for_attention: self.calls_for_attention,
            has_session: self.session.is_some(),
            cloud: self.cloud_status.state(),
        };
        let led = shown.led();
        if self.shown.replace(led) != Some(led) {
            self.board.set_led(led);
            self.notifier.status(shown);
        }
    }
}

/// Passes the login's and link's state on, so that the LED shows it at once.
fn forward_status(authenticator: &Authenticator, found: mpsc::Sender<Background>) {
    let mut status = authenticator.status();
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let current = *status.borrow_and_update();
            if found.send(Background::Status(current)).await.is_err() {
                return;
            }
        }
    });
}
