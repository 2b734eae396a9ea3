//! The sessions: their states, tokens and lifetimes. Pure; time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::contexts::{ContextError, Contexts, Ended, ROOT, Variables};
use super::proto::{ContextType, ServiceResult};
use super::tokens::{Grant, Place, TokenError, Tokens};

/// How long an ended session stays in the list.
const LISTED: Duration = Duration::from_secs(3600);
/// How many sessions are listed. The oldest ended ones make room.
const MAX_SESSIONS: usize = 1000;
/// How many connections keep their variables. A connection ends with its ticket.
const MAX_CONNECTIONS: usize = 100;

/// The state of a session, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No client has authenticated itself yet.
    Available,
    /// In use.
    Active,
    /// Ended by the partner, or abandoned.
    Interrupted,
    /// Ended by `finish`.
    Finished,
    /// Ended because the connection to the vehicle ended.
    Failed,
}

impl State {
    /// The word of the protocol.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Active => "active",
            Self::Interrupted => "interrupted",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }

    /// Whether the session has ended.
    pub(super) fn is_over(self) -> bool {
        !matches!(self, Self::Available | Self::Active)
    }
}

/// Why a call about a session failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RegistryError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("there is no session {0}")]
    NoSession(String),
    #[error("the session is {}", .0.name())]
    Over(State),
    #[error("this gateway has {MAX_SESSIONS} sessions")]
    Full,
}

/// A session, for the partner that started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) id: Uuid,
    pub(super) state: State,
    pub(super) created_at: String,
}

/// The tokens of a new context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CallTokens {
    pub(super) context: u32,
    pub(super) monitor: String,
    pub(super) authentication: String,
}

#[derive(Debug)]
struct Record {
    partner: String,
    connection: Uuid,
    state: State,
    created_at: String,
    contexts: Contexts,
    /// How many streams of session tokens are open: each one is a living client.
    streams: usize,
    /// When the last token expires with which a client could use the session.
    usable_until: Instant,
    ended: Option<Instant>,
}

/// The sessions and the tokens.
#[derive(Debug)]
pub(super) struct Registry {
    pub(super) tokens: Tokens,
    sessions: BTreeMap<Uuid, Record>,
    connections: HashMap<Uuid, Variables>,
}

impl Registry {
    /// `random` makes a text that cannot be guessed.
    pub(super) fn new(random: fn() -> String) -> Self {
        Self { tokens: Tokens::new(random), sessions: BTreeMap::new(), connections: HashMap::new() }
    }

    /// Registers a new session of a partner on a connection; returns its authentication token.
    pub(super) fn start(
        &mut self,
        now: Instant,
        id: Uuid,
        partner: &str,
        connection: Uuid,
        created_at: String,
    ) -> Result<(Info, String), RegistryError> {
        if self.sessions.len() >= MAX_SESSIONS && !self.drop_oldest_ended() {
            return Err(RegistryError::Full);
        }
        let place = Place { session: id, context: ROOT };
        let (token, usable_until) = self.tokens.issue(now, Grant::Authentication(place));
        let record = Record {
            partner: partner.to_owned(),
            connection,
            state: State::Available,
            created_at: created_at.clone(),
            contexts: Contexts::new(),
            streams: 0,
            usable_until,
            ended: None,
        };
        self.sessions.insert(id, record);
        Ok((Info { id, state: State::Available, created_at }, token))
    }

    fn drop_oldest_ended(&mut self) -> bool {
        let ended = self.sessions.iter().filter_map(|(id, record)| Some((record.ended?, *id)));
        ended.min().is_some_and(|(_, id)| self.sessions.remove(&id).is_some())
    }

    /// The sessions of a partner.
    pub(super) fn list(&self, partner: &str) -> Vec<Info> {
        let own = self.sessions.iter().filter(|(_, record)| record.partner == partner);
        own.map(|(id, record)| info(*id, record)).collect()
    }

    /// A session of a partner, by its text. Another partner's session does not exist for this one.
    pub(super) fn find(&self, partner: &str, id: &str) -> Result<Info, RegistryError> {
        let unknown = || RegistryError::NoSession(id.to_owned());
        let uuid: Uuid = id.parse().map_err(|_| unknown())?;
        let record =
            self.sessions.get(&uuid).filter(|record| record.partner == partner).ok_or_else(unknown)?;
        Ok(info(uuid, record))
    }

    /// The partner of a session.
    pub(super) fn partner(&self, session: Uuid) -> Option<&str> {
        self.sessions.get(&session).map(|record| record.partner.as_str())
    }

    /// The session that is not over on a connection, and whether a living client holds it.
    pub(super) fn on_connection(&self, connection: Uuid) -> Option<(Uuid, bool)> {
        let running = |record: &Record| record.connection == connection && !record.state.is_over();
        let found = self.sessions.iter().find(|(_, record)| running(record));
        found.map(|(id, record)| (*id, record.streams > 0))
    }

    /// Ends a session that is not over. Returns whether it was running.
    pub(super) fn end(&mut self, now: Instant, id: Uuid, state: State) -> bool {
        match self.sessions.get_mut(&id) {
            Some(record) if !record.state.is_over() => {
                record.state = state;
                record.ended = Some(now);
                true
            }
            _ => false,
        }
    }

    fn running(&mut self, place: Place) -> Result<&mut Record, RegistryError> {
        let unknown = || RegistryError::NoSession(place.session.to_string());
        let record = self.sessions.get_mut(&place.session).ok_or_else(unknown)?;
        if record.state.is_over() { Err(RegistryError::Over(record.state)) } else { Ok(record) }
    }

    /// Whether an authentication token could be used now.
    pub(super) fn assert_authentication(&mut self, now: Instant, token: &str) -> Result<(), RegistryError> {
        let place = self.tokens.authentication(now, token)?;
        self.running(place)?.contexts.open(place.context)?;
        Ok(())
    }

    /// Exchanges an authentication token for a session token.
    pub(super) fn authenticate(&mut self, now: Instant, token: &str) -> Result<String, RegistryError> {
        let place = self.tokens.authentication(now, token)?;
        let record = self.running(place)?;
        record.contexts.authenticate(place.context)?;
        record.state = State::Active;
        self.tokens.use_up(token);
        self.renew(now, place)
    }

    /// Issues the next session token of a context.
    pub(super) fn renew(&mut self, now: Instant, place: Place) -> Result<String, RegistryError> {
        self.running(place)?.contexts.open(place.context)?;
        let (token, expires) = self.tokens.issue(now, Grant::Session(place));
        let record = self.running(place)?;
        record.usable_until = record.usable_until.max(expires);
        Ok(token)
    }

    /// Issues the next monitor token of a context.
    pub(super) fn renew_monitor(&mut self, now: Instant, place: Place) -> Result<String, RegistryError> {
        self.running(place)?;
        Ok(self.tokens.issue(now, Grant::Monitor(place)).0)
    }

    /// The place of a session token whose session and context are running.
    pub(super) fn enter(&mut self, now: Instant, token: &str) -> Result<Place, RegistryError> {
        let place = self.tokens.session(now, token)?;
        self.running(place)?.contexts.open(place.context)?;
        Ok(place)
    }

    /// Like [`Registry::enter`], but also for an authentication token that has not been used: a composition calls
    /// functions without authenticating itself, and leaves the vehicle to them.
    pub(super) fn enter_unauthenticated(
        &mut self,
        now: Instant,
        token: &str,
    ) -> Result<Place, RegistryError> {
        let place = self.tokens.session_or_authentication(now, token)?;
        self.running(place)?.contexts.open(place.context)?;
        Ok(place)
    }

    /// The contexts of the session of a token, and the token's context.
    pub(super) fn contexts(
        &mut self,
        now: Instant,
        token: &str,
    ) -> Result<(u32, &mut Contexts), RegistryError> {
        let place = self.enter_unauthenticated(now, token)?;
        Ok((place.context, &mut self.running(place)?.contexts))
    }

    /// Starts the context of a call.
    pub(super) fn start_call(&mut self, now: Instant, token: &str) -> Result<CallTokens, RegistryError> {
        let caller = self.enter_unauthenticated(now, token)?;
        let record = self.running(caller)?;
        let context = record.contexts.start_call(caller.context)?;
        record.state = State::Active;
        let place = Place { context, ..caller };
        let (authentication, _) = self.tokens.issue(now, Grant::Authentication(place));
        let (monitor, _) = self.tokens.issue(now, Grant::Monitor(place));
        Ok(CallTokens { context, monitor, authentication })
    }

    /// The next authentication token for the caller of a finished context, if the caller works with such tokens.
    /// Otherwise empty: the caller goes on with its session token.
    pub(super) fn token_for_caller(&mut self, now: Instant, place: Place) -> String {
        let Ok(record) = self.running(place) else { return String::new() };
        let Some(context) = record.contexts.unauthenticated_caller(place.context) else {
            return String::new();
        };
        let (token, expires) = self.tokens.issue(now, Grant::Authentication(Place { context, ..place }));
        if let Ok(record) = self.running(place) {
            record.usable_until = record.usable_until.max(expires);
        }
        token
    }

    /// The result of a context, if it is finished or its session is over.
    pub(super) fn result(&self, place: Place) -> Option<ServiceResult> {
        match self.sessions.get(&place.session) {
            Some(record) if !record.state.is_over() => record.contexts.result(place.context),
            Some(record) => Some(record.contexts.result(place.context).unwrap_or_default()),
            None => Some(ServiceResult::default()),
        }
    }

    /// The variables of a scope.
    pub(super) fn scope(
        &mut self,
        now: Instant,
        token: &str,
        scope: i32,
    ) -> Result<&mut Variables, RegistryError> {
        let place = self.enter_unauthenticated(now, token)?;
        match ContextType::try_from(scope) {
            Ok(ContextType::GlobalContext) => Ok(&mut self.running(place)?.contexts.global),
            Ok(ContextType::FunctionContext) => {
                Ok(&mut self.running(place)?.contexts.open(place.context)?.variables)
            }
            Ok(ContextType::ConnectionContext) => {
                let connection = self.running(place)?.connection;
                self.make_room_for(connection);
                Ok(self.connections.entry(connection).or_default())
            }
            Ok(ContextType::UndefinedContext) | Err(_) => Err(ContextError::NoScope.into()),
        }
    }

    /// Forgets the variables of a connection without a session, if there are too many.
    fn make_room_for(&mut self, connection: Uuid) {
        if self.connections.len() < MAX_CONNECTIONS || self.connections.contains_key(&connection) {
            return;
        }
        let idle = self.connections.keys().find(|uuid| self.on_connection(**uuid).is_none()).copied();
        if let Some(idle) = idle {
            self.connections.remove(&idle);
        }
    }

    /// Finishes the context of a token; the session, if the token is the session's own.
    pub(super) fn finish(
        &mut self,
        now: Instant,
        token: &str,
        result: &ServiceResult,
    ) -> Result<(Uuid, Ended), RegistryError> {
        let place = self.enter_unauthenticated(now, token)?;
        let ended = self.running(place)?.contexts.finish(place.context, result)?;
        if ended == Ended::Session {
            self.end(now, place.session, State::Finished);
        }
        Ok((place.session, ended))
    }

    /// A stream of session tokens was opened or closed.
    pub(super) fn count_stream(&mut self, session: Uuid, is_open: bool) {
        if let Some(record) = self.sessions.get_mut(&session) {
            record.streams = if is_open { record.streams + 1 } else { record.streams.saturating_sub(1) };
        }
    }

    /// Interrupts the sessions that no client can use any more, and forgets what is old. Returns the interrupted sessions.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Vec<Uuid> {
        self.tokens.forget_old(now);
        self.sessions.retain(|_, record| record.ended.is_none_or(|ended| now < ended + LISTED));
        let abandoned =
            |record: &Record| !record.state.is_over() && record.streams == 0 && record.usable_until <= now;
        let mut interrupted = Vec::new();
        for (id, record) in self.sessions.iter_mut().filter(|(_, record)| abandoned(record)) {
            record.state = State::Interrupted;
            record.ended = Some(now);
            interrupted.push(*id);
        }
        interrupted
    }
}

fn info(id: Uuid, record: &Record) -> Info {
    Info { id, state: record.state, created_at: record.created_at.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::proto::{Variable, variable};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn random() -> String {
        Uuid::new_v4().to_string()
    }

    /// A registry with a session of the partner `p`, and its authentication token.
    fn started(now: Instant) -> (Registry, Uuid, String) {
        let mut registry = Registry::new(random);
        let id = Uuid::new_v4();
        let (info, token) = registry.start(now, id, "p", Uuid::new_v4(), String::new()).unwrap();
        assert_eq!(info.state, State::Available);
        (registry, id, token)
    }

    fn state(registry: &Registry, id: Uuid) -> State {
        registry.find("p", &id.to_string()).unwrap().state
    }

    fn text(key: &str, value: &str) -> Variable {
        Variable { r#type: 0, key: key.to_owned(), val: Some(variable::Val::Value(value.to_owned())) }
    }

    #[test]
    fn an_authentication_token_is_used_once_and_within_five_minutes() {
        let now = Instant::now();
        let (mut registry, id, token) = started(now);
        registry.assert_authentication(now, &token).unwrap();
        let session = registry.authenticate(now, &token).unwrap();
        assert_eq!(state(&registry, id), State::Active);
        assert_eq!(registry.authenticate(now, &token), Err(TokenError::Used.into()));
        assert!(registry.enter(now, &session).is_ok());
        assert!(matches!(
            registry.authenticate(now, &session),
            Err(RegistryError::Token(TokenError::Kind { .. }))
        ));

        let (mut registry, _, token) = started(now);
        let late = registry.authenticate(now + 300 * SECOND, &token);
        assert_eq!(late, Err(TokenError::Expired("an authentication token").into()));
        assert_eq!(registry.authenticate(now, "x"), Err(TokenError::Unknown.into()));
        assert_eq!(registry.authenticate(now, ""), Err(TokenError::Missing.into()));
    }

    #[test]
    fn a_session_token_lives_for_five_minutes_and_is_renewed_while_valid() {
        let now = Instant::now();
        let (mut registry, _, token) = started(now);
        let first = registry.authenticate(now, &token).unwrap();
        let place = registry.enter(now + 299 * SECOND, &first).unwrap();
        let second = registry.renew(now + 299 * SECOND, place).unwrap();
        assert!(registry.enter(now + 300 * SECOND, &first).is_err());
        assert!(registry.enter(now + 598 * SECOND, &second).is_ok());
    }

    #[test]
    fn a_token_of_one_kind_does_not_allow_calls_of_another() {
        let now = Instant::now();
        let mut registry = Registry::new(random);
        let (controller, _) = registry.tokens.issue(now, Grant::Controller { partner: "p".to_owned() });
        let (broker, _) = registry.tokens.issue(now, Grant::Broker { partner: "p".to_owned() });
        assert_eq!(registry.tokens.controller(now + 5399 * SECOND, &controller), Ok("p".to_owned()));
        assert!(registry.tokens.controller(now + 5400 * SECOND, &controller).is_err());
        assert!(registry.tokens.controller(now, &broker).is_err());
        assert!(registry.tokens.broker(now, &controller).is_err());
        assert!(registry.tokens.monitor(now, &broker).is_err());
        assert!(registry.enter(now, &broker).is_err());
        assert!(registry.tokens.broker(now + 300 * SECOND, &broker).is_err());
    }

    #[test]
    fn an_expired_token_is_named_for_a_while_and_then_forgotten() {
        let now = Instant::now();
        let (mut registry, _, token) = started(now);
        registry.handle_timeout(now + 899 * SECOND);
        let expired = registry.authenticate(now + 899 * SECOND, &token);
        assert_eq!(expired, Err(TokenError::Expired("an authentication token").into()));
        registry.handle_timeout(now + 900 * SECOND);
        assert_eq!(registry.authenticate(now + 900 * SECOND, &token), Err(TokenError::Unknown.into()));
    }

    #[test]
    fn another_partners_session_does_not_exist() {
        let (registry, id, _) = started(Instant::now());
        assert_eq!(registry.list("p").len(), 1);
        assert!(registry.list("q").is_empty());
        let name = id.to_string();
        assert_eq!(registry.find("q", &name), Err(RegistryError::NoSession(name)));
        assert!(registry.find("p", "not a uuid").is_err());
    }

    #[test]
    fn a_session_that_is_over_refuses_calls_with_its_state() {
        let now = Instant::now();
        for (end, expected) in [
            (State::Interrupted, RegistryError::Over(State::Interrupted)),
            (State::Failed, RegistryError::Over(State::Failed)),
        ] {
            let (mut registry, id, token) = started(now);
            let session = registry.authenticate(now, &token).unwrap();
            assert!(registry.end(now, id, end));
            assert!(!registry.end(now, id, State::Finished), "a session ends once");
            assert_eq!(registry.enter(now, &session), Err(expected.clone()));
            assert_eq!(registry.start_call(now, &session), Err(expected));
            assert_eq!(state(&registry, id), end);
        }
    }

    #[test]
    fn a_session_that_no_client_can_use_is_interrupted() {
        let now = Instant::now();
        let (mut registry, id, token) = started(now);
        assert!(registry.handle_timeout(now + 299 * SECOND).is_empty());
        assert_eq!(registry.handle_timeout(now + 300 * SECOND), [id]);
        assert!(registry.authenticate(now, &token).is_err());

        let (mut registry, id, token) = started(now);
        registry.authenticate(now, &token).unwrap();
        registry.count_stream(id, true);
        assert!(registry.handle_timeout(now + 3600 * SECOND).is_empty(), "a client holds it");
        registry.count_stream(id, false);
        assert_eq!(registry.handle_timeout(now + 3600 * SECOND), [id]);
        assert_eq!(state(&registry, id), State::Interrupted);
        registry.handle_timeout(now + 7200 * SECOND);
        assert!(registry.list("p").is_empty(), "it is listed for an hour");
    }

    #[test]
    fn a_full_list_drops_the_oldest_ended_session() {
        let now = Instant::now();
        let mut registry = Registry::new(random);
        let start = |registry: &mut Registry| {
            let id = Uuid::new_v4();
            registry.start(now, id, "p", Uuid::new_v4(), String::new()).map(|_| id)
        };
        let ids: Vec<Uuid> = (0..MAX_SESSIONS).map(|_| start(&mut registry).unwrap()).collect();
        assert_eq!(start(&mut registry), Err(RegistryError::Full));
        registry.end(now + SECOND, ids[0], State::Finished);
        registry.end(now, ids[1], State::Finished);
        start(&mut registry).unwrap();
        assert!(registry.find("p", &ids[0].to_string()).is_ok());
        assert!(registry.find("p", &ids[1].to_string()).is_err());
    }

    #[test]
    fn a_called_function_has_its_own_variables_arguments_and_results() {
        let now = Instant::now();
        let (mut registry, id, token) = started(now);
        let caller = registry.authenticate(now, &token).unwrap();
        let call = registry.start_call(now, &caller).unwrap();
        let (context, contexts) = registry.contexts(now, &caller).unwrap();
        contexts.set_argument(context, text("x", "1")).unwrap();
        let callee = registry.authenticate(now, &call.authentication).unwrap();
        let (inner, contexts) = registry.contexts(now, &callee).unwrap();
        assert_eq!(contexts.arguments(inner).unwrap(), [text("x", "1")]);
        contexts.set_result(inner, text("y", "2")).unwrap();
        for (scope, shared) in [(1, true), (2, false), (3, true)] {
            registry.scope(now, &caller, scope).unwrap().set(text("k", "v")).unwrap();
            let seen = registry.scope(now, &callee, scope).unwrap().get("k");
            assert_eq!(seen.is_ok(), shared, "scope {scope}");
        }
        assert!(registry.scope(now, &callee, 0).is_err());

        let success = ServiceResult { result: vec![1], ..ServiceResult::default() };
        let place = registry.tokens.monitor(now, &call.monitor).unwrap();
        assert_eq!(registry.result(place), None);
        assert_eq!(registry.finish(now, &callee, &success), Ok((id, Ended::Function)));
        assert_eq!(registry.result(place), Some(success.clone()));
        assert_eq!(registry.enter(now, &callee), Err(ContextError::Finished.into()));
        let (context, contexts) = registry.contexts(now, &caller).unwrap();
        assert_eq!(contexts.results(context).unwrap(), [text("y", "2")]);
        assert_eq!(registry.finish(now, &caller, &success), Ok((id, Ended::Session)));
        assert_eq!(state(&registry, id), State::Finished);
    }

    #[test]
    fn a_caller_whose_call_did_not_begin_finishes_the_call_first() {
        let now = Instant::now();
        let (mut registry, id, token) = started(now);
        let caller = registry.authenticate(now, &token).unwrap();
        let call = registry.start_call(now, &caller).unwrap();
        let failure = ServiceResult { result: vec![11], ..ServiceResult::default() };
        assert_eq!(registry.finish(now, &caller, &failure), Ok((id, Ended::Function)));
        assert!(registry.authenticate(now, &call.authentication).is_err());
        assert_eq!(registry.finish(now, &caller, &failure), Ok((id, Ended::Session)));
    }

    #[test]
    fn a_caller_that_finishes_ends_the_functions_that_it_called() {
        let now = Instant::now();
        let (mut registry, id, token) = started(now);
        let caller = registry.authenticate(now, &token).unwrap();
        let call = registry.start_call(now, &caller).unwrap();
        let callee = registry.authenticate(now, &call.authentication).unwrap();
        let inner = registry.start_call(now, &callee).unwrap();
        let innermost = registry.authenticate(now, &inner.authentication).unwrap();
        let result = ServiceResult::default();
        assert_eq!(registry.finish(now, &caller, &result), Ok((id, Ended::Session)));
        for token in [callee, innermost] {
            assert!(registry.enter(now, &token).is_err());
        }
        for monitor in [call.monitor, inner.monitor] {
            let place = registry.tokens.monitor(now, &monitor).unwrap();
            assert!(registry.result(place).is_some());
        }
    }

    #[test]
    fn a_composition_calls_functions_without_authenticating_itself() {
        let now = Instant::now();
        let (mut registry, id, token) = started(now);
        assert!(registry.enter(now, &token).is_err(), "the vehicle needs a session token");
        let call = registry.start_call(now, &token).unwrap();
        assert_eq!(state(&registry, id), State::Active);
        let callee = registry.authenticate(now, &call.authentication).unwrap();
        let later = now + 3600 * SECOND;
        let place = registry.tokens.monitor(now, &call.monitor).unwrap();
        registry.finish(now, &callee, &ServiceResult::default()).unwrap();
        let next = registry.token_for_caller(later, place);
        assert!(registry.contexts(later, &token).is_err(), "the first token has expired");
        assert!(registry.contexts(later, &next).is_ok());
        assert!(registry.handle_timeout(later).is_empty());
        assert_eq!(registry.finish(later, &next, &ServiceResult::default()), Ok((id, Ended::Session)));

        let (mut registry, _, token) = started(now);
        let caller = registry.authenticate(now, &token).unwrap();
        let call = registry.start_call(now, &caller).unwrap();
        let place = registry.tokens.monitor(now, &call.monitor).unwrap();
        assert_eq!(registry.token_for_caller(now, place), "", "the session token stays");
    }

    #[test]
    fn a_function_that_calls_itself_without_end_is_refused() {
        let now = Instant::now();
        let (mut registry, _, token) = started(now);
        let mut token = registry.authenticate(now, &token).unwrap();
        let refused = loop {
            match registry.start_call(now, &token) {
                Ok(call) => token = registry.authenticate(now, &call.authentication).unwrap(),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, ContextError::TooDeep.into());
    }

    #[test]
    fn variables_have_a_bound() {
        let mut variables = Variables::default();
        for number in 0..1000 {
            variables.set(text(&number.to_string(), "x")).unwrap();
        }
        assert_eq!(variables.set(text("one more", "x")), Err(ContextError::Full));
        variables.set(text("0", "replaced")).unwrap();
        assert_eq!(variables.set(text("0", &"x".repeat(4 << 20))), Err(ContextError::Full));
        variables.delete("0").unwrap();
        assert!(variables.delete("0").is_err());
        variables.set(text("one more", "x")).unwrap();
        assert_eq!(variables.set(text("", "x")), Err(ContextError::NoKey));
        let empty = Variable { val: None, ..text("k", "") };
        assert_eq!(variables.set(empty), Err(ContextError::NoValue("k".to_owned())));
    }
}
