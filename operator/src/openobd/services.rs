//! The services of sessions: tokens, states, and the beginning and end of a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::contexts::Ended;
use super::endpoint::Endpoint;
use super::gateway::{Gateway, bearer};
use super::proto::session_controller_server::SessionController;
use super::proto::session_server::Session;
use super::proto::{
    Authenticate, ConnectorId, EmptyMessage, ServiceResult, SessionControllerToken, SessionId, SessionInfo,
    SessionInfoList, SessionToken, TicketId,
};
use super::registry::{Info, RegistryError, State};
use super::tokens::{Grant, Place};

/// How often a stream delivers the next token, which lives for 5 minutes.
pub(super) const RENEWAL: Duration = Duration::from_secs(120);

/// The implementation of all services.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) gateway: Arc<Gateway>,
}

/// A stream of responses.
pub(super) type Responses<M> = ReceiverStream<Result<M, Status>>;

pub(super) fn empty() -> Result<Response<EmptyMessage>, Status> {
    Ok(Response::new(EmptyMessage {}))
}

fn session_info(info: Info, endpoint: &Endpoint, authentication_token: String) -> SessionInfo {
    SessionInfo {
        id: info.id.to_string(),
        state: info.state.name().to_owned(),
        created_at: info.created_at,
        grpc_endpoint: endpoint.host.clone(),
        grpc_port: Some(endpoint.port),
        authentication_token,
    }
}

impl Service {
    fn partner<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let mut registry = self.gateway.registry();
        let partner = registry.tokens.controller(Instant::now(), bearer(request.metadata()));
        Ok(partner.map_err(RegistryError::from)?)
    }
}

#[tonic::async_trait]
impl SessionController for Service {
    async fn get_session_controller_token(
        &self,
        request: Request<Authenticate>,
    ) -> Result<Response<SessionControllerToken>, Status> {
        let Authenticate { client_id, client_secret, .. } = request.into_inner();
        let partner = self.gateway.log_in(client_id, client_secret).await?;
        let (value, _) = self.gateway.registry().tokens.issue(Instant::now(), Grant::Controller { partner });
        Ok(Response::new(SessionControllerToken { value }))
    }

    async fn start_session_on_ticket(
        &self,
        request: Request<TicketId>,
    ) -> Result<Response<SessionInfo>, Status> {
        let partner = self.partner(&request)?;
        let endpoint = Endpoint::of(&request);
        let name = request.into_inner().value;
        let what = format!("ticket {name:?}");
        let started = self.gateway.start(&partner, &what, |ticket| ticket.is_called(&name)).await;
        let (info, token) = started?;
        Ok(Response::new(session_info(info, &endpoint, token)))
    }

    async fn start_session_on_connector(
        &self,
        request: Request<ConnectorId>,
    ) -> Result<Response<SessionInfo>, Status> {
        let partner = self.partner(&request)?;
        let endpoint = Endpoint::of(&request);
        let name = request.into_inner().value;
        let what = format!("ticket for connector {name:?}");
        let uuid = name.parse::<Uuid>().ok();
        let started = self.gateway.start(&partner, &what, |ticket| match uuid {
            Some(uuid) => ticket.connector_uuid == Some(uuid),
            None => !name.is_empty() && ticket.connector_id.as_deref() == Some(name.as_str()),
        });
        let (info, token) = started.await?;
        Ok(Response::new(session_info(info, &endpoint, token)))
    }

    async fn get_session(&self, request: Request<SessionId>) -> Result<Response<SessionInfo>, Status> {
        let partner = self.partner(&request)?;
        let endpoint = Endpoint::of(&request);
        let info = self.gateway.registry().find(&partner, &request.get_ref().value)?;
        Ok(Response::new(session_info(info, &endpoint, String::new())))
    }

    async fn interrupt_session(&self, request: Request<SessionId>) -> Result<Response<SessionInfo>, Status> {
        let partner = self.partner(&request)?;
        let endpoint = Endpoint::of(&request);
        let name = &request.get_ref().value;
        let id = self.gateway.registry().find(&partner, name)?.id;
        self.gateway.end(id, State::Interrupted).await;
        let info = self.gateway.registry().find(&partner, name)?;
        Ok(Response::new(session_info(info, &endpoint, String::new())))
    }

    async fn get_session_list(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<SessionInfoList>, Status> {
        let partner = self.partner(&request)?;
        let endpoint = Endpoint::of(&request);
        let infos = self.gateway.registry().list(&partner);
        let sessions = infos.into_iter().map(|info| session_info(info, &endpoint, String::new())).collect();
        Ok(Response::new(SessionInfoList { sessions }))
    }
}

/// Counts an open stream of session tokens.
struct OpenStream {
    gateway: Arc<Gateway>,
    session: Uuid,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.gateway.registry().count_stream(self.session, false);
    }
}

#[tonic::async_trait]
impl Session for Service {
    async fn authenticate(&self, request: Request<EmptyMessage>) -> Result<Response<SessionToken>, Status> {
        let value = self.gateway.registry().authenticate(Instant::now(), bearer(request.metadata()))?;
        Ok(Response::new(SessionToken { value }))
    }

    async fn assert_authentication_possible(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<EmptyMessage>, Status> {
        self.gateway.registry().assert_authentication(Instant::now(), bearer(request.metadata()))?;
        empty()
    }

    type openSessionTokenStreamStream = Responses<SessionToken>;

    async fn open_session_token_stream(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<Self::openSessionTokenStreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let place = self.gateway.registry().enter(Instant::now(), bearer(request.metadata()))?;
        let (out, stream) = mpsc::channel(1);
        let gateway = Arc::clone(&self.gateway);
        gateway.registry().count_stream(place.session, true);
        let open = OpenStream { gateway: Arc::clone(&gateway), session: place.session };
        tokio::spawn(async move {
            let _open = open;
            let ended = tokio::select! {
                over = live.over() => over,
                () = out.closed() => return,
                ended = deliver_tokens(&gateway, place, &out) => ended,
            };
            if let Err(status) = ended {
                let _the_client_has_gone = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn finish(&self, request: Request<ServiceResult>) -> Result<Response<EmptyMessage>, Status> {
        let token = bearer(request.metadata()).to_owned();
        let result = request.into_inner();
        let (session, ended) = self.gateway.registry().finish(Instant::now(), &token, &result)?;
        match ended {
            Ended::Session => self.gateway.finish(session, &result).await?,
            Ended::Function => self.gateway.notify(),
        }
        empty()
    }
}

/// Delivers the tokens of a context until the context is finished.
async fn deliver_tokens(
    gateway: &Gateway,
    place: Place,
    out: &mpsc::Sender<Result<SessionToken, Status>>,
) -> Result<(), Status> {
    let mut changed = gateway.changed.subscribe();
    let mut due = tokio::time::interval(RENEWAL);
    loop {
        tokio::select! {
            _ = due.tick() => {
                let value = gateway.registry().renew(Instant::now(), place)?;
                if out.send(Ok(SessionToken { value })).await.is_err() {
                    return Ok(());
                }
            }
            Ok(()) = changed.changed() => {
                if gateway.registry().result(place).is_some() {
                    return Ok(());
                }
            }
        }
    }
}
