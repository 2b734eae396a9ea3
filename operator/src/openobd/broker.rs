//! The function broker: programs host functions, and calls reach them, also from other sessions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::endpoint::Endpoint;
use super::gateway::{Gateway, bearer};
use super::proto::function_broker_server::FunctionBroker;
use super::proto::function_update::FunctionData;
use super::proto::{
    Authenticate, EmptyMessage, FunctionBrokerToken, FunctionCall, FunctionId, FunctionRegistration,
    FunctionRegistrationState, FunctionSignature, FunctionUpdate, FunctionUpdateResponse, FunctionUpdateType,
    FunctionVisibility,
};
use super::registry::RegistryError;
use super::services::{RENEWAL, Responses, Service};
use super::tokens::Grant;

/// How many updates may wait for a host.
const WAITING: usize = 64;
/// How long a host may take to accept a call. It starts the function only after accepting.
const ACCEPTING: Duration = Duration::from_secs(10);
/// How many functions the broker remembers.
const MAX_FUNCTIONS: usize = 10_000;

type Updates = mpsc::Sender<Result<FunctionUpdate, Status>>;

/// Provider and function.
type Key = (String, String);

struct Host {
    stream: Uuid,
    out: Updates,
    endpoint: Endpoint,
}

struct Function {
    registration: FunctionRegistration,
    /// `None` if the function is offline.
    host: Option<Host>,
}

/// The hosted functions, and the calls that wait for their hosts.
#[derive(Default)]
pub(super) struct Broker {
    functions: Mutex<HashMap<Key, Function>>,
    /// By the authentication token of the call, which is unique.
    waiting: Mutex<HashMap<String, oneshot::Sender<FunctionUpdate>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn update(data: FunctionData, response: Option<(FunctionUpdateResponse, Option<String>)>) -> FunctionUpdate {
    let kind = if response.is_some() { FunctionUpdateType::Response } else { FunctionUpdateType::Request };
    let (response, response_description) = response.unzip();
    FunctionUpdate {
        r#type: kind as i32,
        function_data: Some(data),
        response: response.map(|response| response as i32),
        response_description: response_description.flatten(),
    }
}

fn call_token(call: &FunctionCall) -> String {
    call.session_info.as_ref().map(|info| info.authentication_token.clone()).unwrap_or_default()
}

impl Broker {
    /// Registers a function, or takes it offline. Returns the response for its host.
    fn register(&self, partner: &str, mut registration: FunctionRegistration, host: Host) -> FunctionUpdate {
        let answer = |registration, response, why: Option<&str>| {
            let data = FunctionData::FunctionRegistration(registration);
            update(data, Some((response, why.map(str::to_owned))))
        };
        let Some(details) = &mut registration.details else {
            return answer(
                registration,
                FunctionUpdateResponse::FunctionUpdateFailed,
                Some("it has no details"),
            );
        };
        if details.id.is_empty() {
            return answer(registration, FunctionUpdateResponse::FunctionUpdateFailed, Some("it has no id"));
        }
        if details.provider_id.as_deref().is_some_and(|provider| !provider.is_empty() && provider != partner)
        {
            let why = Some("the provider is another partner");
            return answer(registration, FunctionUpdateResponse::FunctionUpdateUnauthorized, why);
        }
        details.provider_id = Some(partner.to_owned());
        let key = (partner.to_owned(), details.id.clone());
        let mut functions = lock(&self.functions);
        if functions.len() >= MAX_FUNCTIONS && !functions.contains_key(&key) {
            functions.retain(|_, function| function.host.is_some());
            if functions.len() >= MAX_FUNCTIONS {
                let why = Some("the broker has no room");
                return answer(registration, FunctionUpdateResponse::FunctionUpdateFailed, why);
            }
        }
        let is_online = matches!(
            FunctionRegistrationState::try_from(registration.state),
            Ok(FunctionRegistrationState::Online | FunctionRegistrationState::Undefined)
        );
        let stream = host.stream;
        let function = Function { registration: registration.clone(), host: is_online.then_some(host) };
        let earlier = functions.insert(key, function);
        if let Some(Function { registration, host: Some(host) }) = earlier
            && host.stream != stream
        {
            let why = Some("another program hosts the function now");
            let response = answer(registration, FunctionUpdateResponse::FunctionUpdateUnavailable, why);
            let _it_has_gone = host.out.try_send(Ok(response));
        }
        answer(registration, FunctionUpdateResponse::FunctionUpdateSuccess, None)
    }

    /// Takes the functions of a host offline.
    fn leave(&self, stream: Uuid) {
        for function in lock(&self.functions).values_mut() {
            if function.host.as_ref().is_some_and(|host| host.stream == stream) {
                function.host = None;
            }
        }
    }

    /// The registration of a function, for this partner.
    fn registration(&self, partner: &str, id: &FunctionId) -> Result<FunctionRegistration, Status> {
        let provider = id.provider_id.as_deref().filter(|provider| !provider.is_empty()).unwrap_or(partner);
        let functions = lock(&self.functions);
        let function = functions.get(&(provider.to_owned(), id.value.clone())).ok_or_else(|| {
            Status::not_found(format!(
                "no program has registered function {:?} of provider {provider:?}",
                id.value
            ))
        })?;
        let mut registration = function.registration.clone();
        if function.host.is_none() {
            registration.state = FunctionRegistrationState::Offline as i32;
        }
        Ok(registration)
    }

    /// The way to the host of a function, if this partner may call the function.
    fn host(&self, partner: &str, call: &FunctionCall) -> Result<(Updates, Endpoint), Status> {
        let provider = call.provider_id.as_deref().filter(|provider| !provider.is_empty()).unwrap_or(partner);
        let unavailable = || {
            Status::unavailable(format!("no program hosts function {:?} of provider {provider:?}", call.id))
        };
        let functions = lock(&self.functions);
        let function = functions.get(&(provider.to_owned(), call.id.clone())).ok_or_else(unavailable)?;
        let is_internal = function.registration.visibility == Some(FunctionVisibility::Internal as i32);
        if is_internal && provider != partner {
            return Err(Status::permission_denied("the function is internal to its provider"));
        }
        let host = function.host.as_ref().ok_or_else(unavailable)?;
        Ok((host.out.clone(), host.endpoint.clone()))
    }

    /// A host has answered a call.
    fn answer(&self, update: FunctionUpdate) {
        let Some(FunctionData::FunctionCall(call)) = &update.function_data else { return };
        if let Some(waiting) = lock(&self.waiting).remove(&call_token(call)) {
            let _the_caller_has_gone = waiting.send(update);
        }
    }

    /// Sends a call to the function's host, and waits until the host accepts or refuses.
    async fn call(&self, partner: &str, mut call: FunctionCall) -> Result<FunctionUpdate, Status> {
        let (out, endpoint) = self.host(partner, &call)?;
        let token = call_token(&call);
        call.caller_id = Some(partner.to_owned());
        if let Some(info) = &mut call.session_info {
            // callers leave the port out, and without it a host would use TLS
            info.grpc_endpoint = endpoint.host;
            info.grpc_port = Some(endpoint.port);
        }
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).insert(token.clone(), sender);
        let gone = || Status::unavailable("the program that hosts the function has gone");
        let asking = async {
            let request = update(FunctionData::FunctionCall(call), None);
            out.send(Ok(request)).await.map_err(|_| gone())?;
            tokio::select! {
                answer = answer => answer.map_err(|_| gone()),
                () = out.closed() => Err(gone()),
            }
        };
        let answered = tokio::time::timeout(ACCEPTING, asking).await;
        lock(&self.waiting).remove(&token);
        let late =
            || Status::deadline_exceeded(format!("the function's host did not accept within {ACCEPTING:?}"));
        let update = answered.map_err(|_| late())??;
        let why = || update.response_description.clone().unwrap_or_else(|| "it gave no reason".to_owned());
        match FunctionUpdateResponse::try_from(update.response.unwrap_or_default()) {
            Ok(FunctionUpdateResponse::FunctionUpdateSuccess) => Ok(update),
            Ok(FunctionUpdateResponse::FunctionUpdateUnauthorized) => {
                Err(Status::permission_denied(format!("the function's host refused the call: {}", why())))
            }
            Ok(FunctionUpdateResponse::FunctionUpdateUnavailable) => {
                Err(Status::unavailable(format!("the function's host is unavailable: {}", why())))
            }
            _ => Err(Status::aborted(format!("the function's host could not start the function: {}", why()))),
        }
    }
}

/// Serves a program that hosts functions.
async fn host(
    gateway: &Gateway,
    partner: &str,
    stream: Uuid,
    endpoint: &Endpoint,
    mut inbound: Streaming<FunctionUpdate>,
    out: &Updates,
) -> Result<(), Status> {
    let mut due = tokio::time::interval(RENEWAL);
    due.reset();
    loop {
        let message = tokio::select! {
            message = inbound.message() => message?,
            _ = due.tick() => {
                let grant = Grant::Broker { partner: partner.to_owned() };
                let (value, _) = gateway.registry().tokens.issue(Instant::now(), grant);
                let ping = update(FunctionData::FunctionBrokerToken(FunctionBrokerToken { value }), None);
                if out.send(Ok(ping)).await.is_err() {
                    return Ok(());
                }
                continue;
            }
        };
        let Some(message) = message else { return Ok(()) };
        let is_request = message.r#type == FunctionUpdateType::Request as i32;
        match message.function_data {
            Some(FunctionData::FunctionRegistration(registration)) if is_request => {
                let host = Host { stream, out: out.clone(), endpoint: endpoint.clone() };
                let answer = gateway.broker.register(partner, registration, host);
                if out.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            Some(FunctionData::FunctionCall(_)) if !is_request => gateway.broker.answer(message),
            // the answer to a ping
            Some(FunctionData::FunctionBrokerToken(_)) if !is_request => {}
            _ => {
                return Err(Status::invalid_argument(
                    "a host sends registrations, and answers to calls and pings",
                ));
            }
        }
    }
}

impl Service {
    fn broker_partner<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let mut registry = self.gateway.registry();
        let partner = registry.tokens.broker(Instant::now(), bearer(request.metadata()));
        Ok(partner.map_err(RegistryError::from)?)
    }
}

#[tonic::async_trait]
impl FunctionBroker for Service {
    async fn get_function_broker_token(
        &self,
        request: Request<Authenticate>,
    ) -> Result<Response<FunctionBrokerToken>, Status> {
        let Authenticate { client_id, client_secret, .. } = request.into_inner();
        let partner = self.gateway.log_in(client_id, client_secret).await?;
        let (value, _) = self.gateway.registry().tokens.issue(Instant::now(), Grant::Broker { partner });
        Ok(Response::new(FunctionBrokerToken { value }))
    }

    type openFunctionStreamStream = Responses<FunctionUpdate>;

    async fn open_function_stream(
        &self,
        request: Request<Streaming<FunctionUpdate>>,
    ) -> Result<Response<Self::openFunctionStreamStream>, Status> {
        let partner = self.broker_partner(&request)?;
        let endpoint = Endpoint::of(&request);
        let inbound = request.into_inner();
        let (out, responses) = mpsc::channel(WAITING);
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(async move {
            let stream = Uuid::new_v4();
            let ended = tokio::select! {
                ended = host(&gateway, &partner, stream, &endpoint, inbound, &out) => ended,
                () = out.closed() => Ok(()),
            };
            gateway.broker.leave(stream);
            if let Err(status) = ended {
                let _the_client_has_gone = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn run_function(&self, request: Request<FunctionCall>) -> Result<Response<FunctionUpdate>, Status> {
        let partner = self.broker_partner(&request)?;
        let call = request.into_inner();
        let token = call_token(&call);
        {
            let mut registry = self.gateway.registry();
            let place =
                registry.tokens.authentication(Instant::now(), &token).map_err(RegistryError::from)?;
            if registry.partner(place.session) != Some(partner.as_str()) {
                return Err(Status::permission_denied("the session belongs to another partner"));
            }
            registry.assert_authentication(Instant::now(), &token)?;
        }
        Ok(Response::new(self.gateway.broker.call(&partner, call).await?))
    }

    async fn get_function_registration(
        &self,
        request: Request<FunctionId>,
    ) -> Result<Response<FunctionRegistration>, Status> {
        let partner = self.broker_partner(&request)?;
        Ok(Response::new(self.gateway.broker.registration(&partner, request.get_ref())?))
    }

    async fn generate_function_signature(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<FunctionSignature>, Status> {
        self.broker_partner(&request)?;
        // a host shows its right by its token, so that the signature is not checked
        let signature =
            FunctionSignature { id: Uuid::new_v4().to_string(), signature: "not needed".to_owned() };
        Ok(Response::new(signature))
    }
}
