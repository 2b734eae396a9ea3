//! What a transport and the world outside see of an ECU.

use std::sync::Arc;
use std::time::Instant;

use super::{Anomalies, Image, Progress};

/// Who was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// This ECU alone.
    Physical,
    /// Every ECU that hears the functional identifier.
    Functional,
}

/// What runs out at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// The request under way is done.
    Processing,
    /// P2 or P2*: a response or another response pending is due.
    P2,
    /// S3: no tool was heard; back to the default session.
    S3,
    /// The ECU has restarted.
    Reset,
}

/// What answers requests behind a transport: a made-up ECU or a recorded one.
pub trait Responder: Send {
    /// A reception began: S3 stands still.
    fn handle_reception_started(&mut self, now: Instant);
    /// A reception was given up.
    fn handle_reception_failed(&mut self, now: Instant);
    /// A whole request.
    fn handle_request(&mut self, now: Instant, target: Target, pdu: &[u8]);
    /// The response polled last is on the bus, or (`sent` false) will never be.
    fn handle_response_done(&mut self, now: Instant, sent: bool);
    /// A deadline has come.
    fn handle_timeout(&mut self, now: Instant);
    /// The next response; each one polled has its `handle_response_done`.
    fn poll_response(&mut self) -> Option<Vec<u8>>;
    /// When to call `handle_timeout`, and why.
    fn poll_timeout(&self) -> Option<(Instant, Timer)>;
    /// The state, as far as anyone outside may know it; only where it may have changed since the last call.
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
    /// The sub-function that asks for it.
    pub const fn code(self) -> u8 {
        match self {
            Self::Default => 1,
            Self::Programming => 2,
            Self::Extended => 3,
        }
    }
}

/// How much of a recording an ECU has played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptProgress {
    /// How many of the recorded requests have come.
    pub played: usize,
    /// How many there are.
    pub total: usize,
}

/// What can be seen of an ECU from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EcuStatus {
    /// The active session.
    pub session: Session,
    /// The security level (its odd sub-function) that is unlocked.
    pub unlocked: Option<u8>,
    /// The control type last set by CommunicationControl; 0 is normal.
    pub communication: u8,
    /// Whether trouble codes are recorded (ControlDTCSetting).
    pub dtc_setting: bool,
    /// How many requests came, of every kind.
    pub requests: u64,
    /// How many of them were TesterPresent.
    pub tester_presents: u64,
    /// How many responses were given to the transport.
    pub responses: u64,
    /// How many of them were response pending.
    pub pending_responses: u64,
    /// How often it was restarted.
    pub resets: u64,
    /// The download under way.
    pub download: Option<Progress>,
    /// What completed downloads put into memory, the newest last.
    pub memory: Vec<Arc<Image>>,
    /// How far a recorded ECU is.
    pub script: Option<ScriptProgress>,
    /// What should not have happened.
    pub anomalies: Anomalies,
}
