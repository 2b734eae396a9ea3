//! How it stands with the cloud, for whoever wants to know or show it.

/// How it stands with the login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoginState {
    /// The first login is under way.
    #[default]
    LoggingIn,
    /// There is a token.
    LoggedIn,
    /// The cloud does not accept UUID and pincode, or the tokens that it gave for them.
    Rejected,
    /// There is no token, and the cloud cannot be reached.
    Unreachable,
}

/// How it stands with login and link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CloudStatus {
    /// The login.
    pub login: LoginState,
    /// Whether the websocket is up.
    pub is_online: bool,
}

/// [`CloudStatus`] in one word, as a LED can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloudState {
    /// On the way to being online.
    Connecting,
    /// The link is up.
    Online,
    /// The cloud cannot be reached.
    Unreachable,
    /// The cloud does not accept the login: someone has to look at UUID and pincode.
    LoginRejected,
}

impl CloudStatus {
    /// What to show.
    pub fn state(self) -> CloudState {
        match (self.is_online, self.login) {
            (true, _) => CloudState::Online,
            (false, LoginState::Rejected) => CloudState::LoginRejected,
            (false, LoginState::Unreachable) => CloudState::Unreachable,
            (false, LoginState::LoggingIn | LoginState::LoggedIn) => CloudState::Connecting,
        }
    }
}
