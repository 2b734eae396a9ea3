//! The state of the connection to the cloud, for the LED and the service manager.

/// The state of the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginState {
    /// The first login is in progress.
    #[default]
    LoggingIn,
    /// There is a token.
    LoggedIn,
    /// The cloud does not accept UUID and pincode, or the tokens that it issued for them.
    Rejected,
    /// There is no token, and the cloud cannot be reached.
    Unreachable,
}

/// The state of login and websocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CloudStatus {
    /// The login.
    pub login: LoginState,
    /// Whether the websocket is up.
    pub is_online: bool,
}

/// [`CloudStatus`] in one word, for the LED.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudState {
    /// Logging in, or connecting.
    Connecting,
    /// The websocket is up.
    Online,
    /// The cloud cannot be reached.
    Unreachable,
    /// The cloud does not accept the login: UUID or pincode must be corrected.
    LoginRejected,
}

impl CloudStatus {
    /// Summarises login and websocket.
    pub fn state(self) -> CloudState {
        match (self.is_online, self.login) {
            (true, _) => CloudState::Online,
            (false, LoginState::Rejected) => CloudState::LoginRejected,
            (false, LoginState::Unreachable) => CloudState::Unreachable,
            (false, LoginState::LoggingIn | LoginState::LoggedIn) => CloudState::Connecting,
        }
    }
}
