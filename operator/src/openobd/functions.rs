//! The services of functions: contexts with arguments, results and variables; and the log of scripts.

use std::sync::Arc;
use std::time::Instant;

use connector_agent::cli::clean;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::contexts::{ContextError, Contexts};
use super::gateway::{Gateway, bearer};
use super::proto::function_server::Function;
use super::proto::logging_server::Logging;
use super::proto::{
    EmptyMessage, FunctionContext, FunctionDetails, LogLevel, LogMessage, Variable, VariableList,
    VariableSelection,
};
use super::registry::RegistryError;
use super::services::{RENEWAL, Responses, Service, empty};
use super::tokens::Place;

/// The identifier of a context, for clients.
fn context_id(place: Place) -> String {
    format!("{}/{}", place.session, place.context)
}

/// Reports a context's monitor tokens until the context is finished.
async fn monitor(
    gateway: &Gateway,
    place: Place,
    out: &mpsc::Sender<Result<FunctionContext, Status>>,
) -> Result<(), Status> {
    let mut changed = gateway.changed.subscribe();
    let mut due = tokio::time::interval(RENEWAL);
    let id = context_id(place);
    loop {
        let result = gateway.registry().result(place);
        if let Some(result) = result {
            let authentication_token = gateway.registry().token_for_caller(Instant::now(), place);
            let finished = FunctionContext {
                id,
                finished: true,
                monitor_token: String::new(),
                authentication_token,
                service_result: Some(result),
            };
            let _the_client_has_gone = out.send(Ok(finished)).await;
            return Ok(());
        }
        tokio::select! {
            _ = due.tick() => {
                let monitor_token = gateway.registry().renew_monitor(Instant::now(), place)?;
                let context = FunctionContext { id: id.clone(), monitor_token, ..FunctionContext::default() };
                if out.send(Ok(context)).await.is_err() {
                    return Ok(());
                }
            }
            Ok(()) = changed.changed() => {}
        }
    }
}

impl Service {
    /// Changes the caller's context by the value that the request carries.
    fn change_context<T>(
        &self,
        request: Request<T>,
        change: impl FnOnce(&mut Contexts, u32, T) -> Result<(), ContextError>,
    ) -> Result<Response<EmptyMessage>, Status> {
        let token = bearer(request.metadata()).to_owned();
        let mut registry = self.gateway.registry();
        let (context, contexts) = registry.contexts(Instant::now(), &token)?;
        change(contexts, context, request.into_inner()).map_err(RegistryError::from)?;
        empty()
    }
}

#[tonic::async_trait]
impl Function for Service {
    async fn start_function_context(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<FunctionContext>, Status> {
        let mut registry = self.gateway.registry();
        let token = bearer(request.metadata());
        let caller = registry.enter_unauthenticated(Instant::now(), token)?;
        let tokens = registry.start_call(Instant::now(), token)?;
        Ok(Response::new(FunctionContext {
            id: context_id(Place { context: tokens.context, ..caller }),
            finished: false,
            monitor_token: tokens.monitor,
            authentication_token: tokens.authentication,
            service_result: None,
        }))
    }

    type monitorFunctionContextStream = Responses<FunctionContext>;

    async fn monitor_function_context(
        &self,
        request: Request<FunctionContext>,
    ) -> Result<Response<Self::monitorFunctionContextStream>, Status> {
        let place = self.gateway.registry().tokens.monitor(Instant::now(), bearer(request.metadata()));
        let place = place.map_err(RegistryError::from)?;
        let (out, stream) = mpsc::channel(1);
        let gateway = Arc::clone(&self.gateway);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = monitor(&gateway, place, &out) => ended,
                () = out.closed() => return,
            };
            if let Err(status) = ended {
                let _the_client_has_gone = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn register_function_details(
        &self,
        request: Request<FunctionDetails>,
    ) -> Result<Response<EmptyMessage>, Status> {
        self.change_context(request, |contexts, context, value| contexts.register(context, value))
    }

    async fn get_function_details(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<FunctionDetails>, Status> {
        let mut registry = self.gateway.registry();
        let (context, contexts) = registry.contexts(Instant::now(), bearer(request.metadata()))?;
        Ok(Response::new(contexts.details(context)?))
    }

    async fn set_function_argument(
        &self,
        request: Request<Variable>,
    ) -> Result<Response<EmptyMessage>, Status> {
        self.change_context(request, |contexts, context, value| contexts.set_argument(context, value))
    }

    async fn get_function_argument_list(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<VariableList>, Status> {
        let mut registry = self.gateway.registry();
        let (context, contexts) = registry.contexts(Instant::now(), bearer(request.metadata()))?;
        Ok(Response::new(VariableList { variables: contexts.arguments(context)? }))
    }

    async fn set_function_result(
        &self,
        request: Request<Variable>,
    ) -> Result<Response<EmptyMessage>, Status> {
        self.change_context(request, |contexts, context, value| contexts.set_result(context, value))
    }

    async fn get_function_result_list(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<VariableList>, Status> {
        let mut registry = self.gateway.registry();
        let (context, contexts) = registry.contexts(Instant::now(), bearer(request.metadata()))?;
        Ok(Response::new(VariableList { variables: contexts.results(context)? }))
    }

    async fn get_variable_list(
        &self,
        request: Request<VariableSelection>,
    ) -> Result<Response<VariableList>, Status> {
        let selection = request.get_ref();
        let mut registry = self.gateway.registry();
        let scope = registry.scope(Instant::now(), bearer(request.metadata()), selection.r#type)?;
        let variables = scope.list(selection.prefix.as_deref().unwrap_or_default());
        Ok(Response::new(VariableList { variables }))
    }

    async fn set_variable(&self, request: Request<Variable>) -> Result<Response<EmptyMessage>, Status> {
        let token = bearer(request.metadata()).to_owned();
        let variable = request.into_inner();
        let mut registry = self.gateway.registry();
        registry.scope(Instant::now(), &token, variable.r#type)?.set(variable)?;
        empty()
    }

    async fn get_variable(&self, request: Request<Variable>) -> Result<Response<Variable>, Status> {
        let wanted = request.get_ref();
        let mut registry = self.gateway.registry();
        let scope = registry.scope(Instant::now(), bearer(request.metadata()), wanted.r#type)?;
        Ok(Response::new(scope.get(&wanted.key)?))
    }

    async fn delete_variable(&self, request: Request<Variable>) -> Result<Response<EmptyMessage>, Status> {
        let wanted = request.get_ref();
        let mut registry = self.gateway.registry();
        registry.scope(Instant::now(), bearer(request.metadata()), wanted.r#type)?.delete(&wanted.key)?;
        empty()
    }
}

#[tonic::async_trait]
impl Logging for Service {
    async fn open_log_stream(
        &self,
        request: Request<Streaming<LogMessage>>,
    ) -> Result<Response<EmptyMessage>, Status> {
        let live = self.gateway.enter_unauthenticated(request.metadata())?;
        let mut inbound = request.into_inner();
        let session = live.id;
        let logging = async {
            while let Some(LogMessage { content, level }) = inbound.message().await? {
                let content = clean(&content);
                match LogLevel::try_from(level.unwrap_or_default()).unwrap_or_default() {
                    LogLevel::Debug => tracing::debug!(%session, "script: {content}"),
                    LogLevel::Warning => tracing::warn!(%session, "script: {content}"),
                    LogLevel::Error => tracing::error!(%session, "script: {content}"),
                    LogLevel::Info | LogLevel::Undefined => tracing::info!(%session, "script: {content}"),
                }
            }
            Ok(())
        };
        tokio::select! {
            over = live.over() => over?,
            logged = logging => {
                let logged: Result<(), Status> = logged;
                logged?;
            }
        }
        empty()
    }
}
