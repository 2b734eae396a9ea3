//! The interface of an ECU towards its transport and its observers.

use std::sync::Arc;
use std::time::Instant;

use super::anomalies::Anomalies;
use super::download::{Image, Progress};

/// The addressing of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The request is for this ECU alone.
    Physical,
    /// The request is for every ECU that receives the functional identifier.
    Functional,
}

/// The timer that expires at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// The request in progress is complete.
    Processing,
    /// P2 or P2*: a response or another response pending is due.
    P2,
    /// S3: no request was received; return to the default session.
    S3,
    /// The ECU has restarted.
    Reset,
}

/// Answers requests behind a transport: a simulated ECU or a recorded one.
pub trait Responder: Send {
    /// Reports that a reception began, which stops S3.
    fn handle_reception_started(&mut self, now: Instant);
    /// Reports that a reception was abandoned.
    fn handle_reception_failed(&mut self, now: Instant);
    /// Handles a complete request.
    fn handle_request(&mut self, now: Instant, target: Target, pdu: &[u8]);
    /// Reports that the response polled last was sent, or (`sent` is false) never will be.
    fn handle_response_done(&mut self, now: Instant, sent: bool);
    /// Handles expired deadlines.
    fn handle_timeout(&mut self, now: Instant);
    /// Returns the next response. Report the outcome of each by `handle_response_done`.
    fn poll_response(&mut self) -> Option<Vec<u8>>;
    /// The time of the next call of `handle_timeout`, and its reason.
    fn poll_timeout(&self) -> Option<(Instant, Timer)>;
    /// The observable state, if it may have changed since the last call.
    fn poll_status(&mut self) -> Option<EcuStatus>;
}

/// A diagnostic session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Session {
    /// defaultSession
    #[default]
    Default,
    /// programmingSession
    Programming,
    /// extendedDiagnosticSession
    Extended,
}

impl Session {
    /// The sub-function that requests this session.
    pub const fn code(self) -> u8 {
        match self {
            Self::Default => 1,
            Self::Programming => 2,
            Self::Extended => 3,
        }
    }
}

/// The progress of a replayed recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptProgress {
    /// The number of recorded requests that were received.
    pub played: usize,
    /// The number of recorded requests.
    pub total: usize,
}

/// The observable state of an ECU.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EcuStatus {
    /// The active session.
    pub session: Session,
    /// The unlocked security level, as its odd sub-function.
    pub unlocked: Option<u8>,
    /// The control type last set by CommunicationControl; 0 is normal communication.
    pub communication: u8,
    /// Whether trouble codes are recorded (ControlDTCSetting).
    pub dtc_setting: bool,
    /// The number of received requests of every kind.
    pub requests: u64,
    /// The number of received TesterPresent requests.
    pub tester_presents: u64,
    /// The number of responses passed to the transport.
    pub responses: u64,
    /// The number of responses pending among them.
    pub pending_responses: u64,
    /// The number of restarts.
    pub resets: u64,
    /// The download in progress.
    pub download: Option<Progress>,
    /// The completed downloads, the newest last.
    pub memory: Vec<Arc<Image>>,
    /// The progress of a recorded ECU.
    pub script: Option<ScriptProgress>,
    /// The anomalies so far.
    pub anomalies: Anomalies,
}
