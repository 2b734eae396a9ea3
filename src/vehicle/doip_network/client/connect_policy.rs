//! How and when to connect with a gateway: with or without TLS, immediately, after a pause, or not again. A
//! pure state machine.

use std::time::{Duration, Instant};

use crate::protocol::doip::ProtocolVersion;
use crate::protocol::doip::connection::ConnectionError;
use crate::vehicle::doip_network::network::GatewayConnectError;

/// The pause before the next attempt after a connection could not be made. The value is a compromise: a
/// gateway that is starting refuses connections for seconds, and an operator waits for it.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After a connection that worked this long, the next attempt follows without a pause, so that a gateway that
/// keeps closing connections is connected at most twice a second. The websocket to the cloud has the same
/// rule.
const EARNS_RETRY: Duration = Duration::from_millis(500);

/// The reason why there is no connection now.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be made.
    #[error(transparent)]
    Connect(#[from] GatewayConnectError),
    /// The gateway demands TLS, but the connection by TLS could not be made.
    #[error("the gateway demands TLS (0x07), and there is none: {0}")]
    NoTls(#[source] GatewayConnectError),
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl ClientError {
    /// Whether another attempt may succeed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect(error) | Self::NoTls(error) => !matches!(error, GatewayConnectError::NoTls(_)),
            Self::Connection(error) => error.may_pass(),
        }
    }
}

/// The time of the next attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextAttempt {
    Immediately,
    At(Instant),
    Never,
}

/// What follows the end of a connection.
pub(super) enum AfterClose {
    /// The gateway demands TLS: the next attempt, with TLS, follows immediately.
    UseTls,
    /// The gateway uses another protocol version: the next attempt, in that version, follows immediately.
    UseVersion(ProtocolVersion),
    /// The connection is down.
    Down(ClientError, NextAttempt),
}

/// Decides how and when to connect with one gateway.
pub(super) struct ConnectPolicy {
    tls: bool,
    /// The gateway refused a connection without TLS.
    tls_demanded: bool,
    /// The version was changed as the gateway demanded.
    has_changed_version: bool,
    connected_at: Option<Instant>,
    is_active: bool,
    /// Routing was active once: a gateway that refuses now may be starting up.
    was_active: bool,
}

impl ConnectPolicy {
    /// Connects with TLS, or without until the gateway demands TLS.
    pub(super) fn new(tls: bool) -> Self {
        Self {
            tls,
            tls_demanded: false,
            has_changed_version: false,
            connected_at: None,
            is_active: false,
            was_active: false,
        }
    }

    /// Whether the next attempt uses TLS.
    pub(super) fn uses_tls(&self) -> bool {
        self.tls
    }

    /// Whether routing is active.
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// There is a connection, which is not active yet.
    pub(super) fn handle_connected(&mut self, now: Instant) {
        self.connected_at = Some(now);
    }

    /// Routing is active.
    pub(super) fn handle_active(&mut self) {
        self.is_active = true;
        self.was_active = true;
    }

    /// The connection could not be made.
    pub(super) fn handle_connect_error(
        &mut self,
        now: Instant,
        error: GatewayConnectError,
    ) -> (ClientError, NextAttempt) {
        let error = if self.tls_demanded { ClientError::NoTls(error) } else { error.into() };
        self.handle_down(error, NextAttempt::At(now + RETRY_AFTER))
    }

    /// The connection ended.
    pub(super) fn handle_closed(&mut self, now: Instant, error: ConnectionError) -> AfterClose {
        if error.needs_tls() && !self.tls {
            (self.tls, self.tls_demanded) = (true, true);
            return AfterClose::UseTls;
        }
        if let Some(version) = error.needs_version()
            && !std::mem::replace(&mut self.has_changed_version, true)
        {
            return AfterClose::UseVersion(version);
        }
        let worked_for = self.connected_at.map(|at| now.saturating_duration_since(at));
        let has_earned_retry = self.is_active && worked_for.is_some_and(|time| time >= EARNS_RETRY);
        let next =
            if has_earned_retry { NextAttempt::Immediately } else { NextAttempt::At(now + RETRY_AFTER) };
        let (error, next) = self.handle_down(error.into(), next);
        AfterClose::Down(error, next)
    }

    fn handle_down(&mut self, error: ClientError, next: NextAttempt) -> (ClientError, NextAttempt) {
        self.is_active = false;
        let may_try_again = error.may_pass() || self.was_active;
        (error, if may_try_again { next } else { NextAttempt::Never })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::doip::ActivationCode;

    const SECOND: Duration = Duration::from_secs(1);

    /// The error and the next attempt after a loss that is reported.
    fn down(after: AfterClose) -> (ClientError, NextAttempt) {
        match after {
            AfterClose::Down(error, next) => (error, next),
            AfterClose::UseTls | AfterClose::UseVersion(_) => panic!("the loss is reported"),
        }
    }

    #[test]
    fn a_connection_that_worked_for_half_a_second_is_made_again_immediately() {
        let start = Instant::now();
        for (worked_for, next) in [
            (EARNS_RETRY, NextAttempt::Immediately),
            (EARNS_RETRY / 2, NextAttempt::At(start + EARNS_RETRY / 2 + RETRY_AFTER)),
        ] {
            let mut policy = ConnectPolicy::new(false);
            policy.handle_connected(start);
            policy.handle_active();
            let closed = policy.handle_closed(start + worked_for, ConnectionError::ClosedByGateway);
            assert_eq!(down(closed).1, next);
            assert!(!policy.is_active());
        }
    }

    #[test]
    fn a_gateway_that_demands_tls_is_connected_with_tls_immediately() {
        let start = Instant::now();
        let mut policy = ConnectPolicy::new(false);
        policy.handle_connected(start);
        let denied = ConnectionError::Denied(ActivationCode::TlsRequired);
        assert!(matches!(policy.handle_closed(start, denied), AfterClose::UseTls));
        assert!(policy.uses_tls());
        let no_tls = GatewayConnectError::NoTls("no certificates".to_owned());
        let (error, next) = policy.handle_connect_error(start, no_tls);
        assert!(matches!(error, ClientError::NoTls(_)));
        assert_eq!(next, NextAttempt::Never);
    }

    #[test]
    fn a_gateway_of_another_version_is_connected_in_its_version_once() {
        let start = Instant::now();
        let (asked, own) = (ProtocolVersion::V2012, ProtocolVersion::V2025);
        let mut policy = ConnectPolicy::new(false);
        policy.handle_connected(start);
        let closed = policy.handle_closed(start, ConnectionError::OtherVersion { asked, own });
        assert!(matches!(closed, AfterClose::UseVersion(version) if version == own));
        let again = ConnectionError::OtherVersion { asked: own, own: asked };
        assert_eq!(down(policy.handle_closed(start, again)).1, NextAttempt::Never);
    }

    #[test]
    fn a_final_refusal_is_final_only_before_routing_was_active() {
        let start = Instant::now();
        let denied = || ConnectionError::Denied(ActivationCode::UnknownSourceAddress);
        let mut policy = ConnectPolicy::new(false);
        policy.handle_connected(start);
        assert_eq!(down(policy.handle_closed(start, denied())).1, NextAttempt::Never);
        policy.handle_active();
        let (_, next) = down(policy.handle_closed(start + SECOND / 4, denied()));
        assert_eq!(next, NextAttempt::At(start + SECOND / 4 + RETRY_AFTER));
    }
}
