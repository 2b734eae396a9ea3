//! TLS connections: accepts them and serves HTTP/1.1 on each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::app::App;
use super::{rest, websocket};

/// Limit of simultaneous TCP connections, including websockets until they are upgraded.
const MAX_CONNECTIONS: usize = 4096;
/// Limit for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Limit for a request's header, and thereby for an idle connection.
const HEADER: Duration = Duration::from_secs(60);
/// Limit for a request, including its body.
const REQUEST: Duration = Duration::from_secs(60);
/// Limit of a request's header, in bytes.
const MAX_HEADER: usize = 32 * 1024;
/// Limit of the header lines of a request.
const MAX_HEADERS: usize = 64;
/// Accepts connections until the shutdown, with a task for each.
pub(super) async fn accept(app: App, listener: TcpListener, acceptor: TlsAcceptor) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let router =
        rest::router(Arc::clone(&app), get(websocket::upgrade_relay), get(websocket::upgrade_portal));
    loop {
        // at the limit, new connections wait in the kernel's queue
        let place = tokio::select! {
            () = app.shutdown.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            () = app.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = serve(Arc::clone(&app), router.clone(), acceptor.clone(), stream, peer, place);
                app.tasks.spawn(serving);
            }
            Err(error) => {
                // probably out of file descriptors, which return as connections end
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection: TLS, then HTTP/1.1 until the connection ends or becomes a websocket.
async fn serve(
    app: App,
    router: axum::Router,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake timed out"),
    };
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |request| {
        let answering = hyper::service::Service::call(&router, request);
        async move {
            match tokio::time::timeout(REQUEST, answering).await {
                Ok(answered) => answered,
                Err(_) => Ok(rest::timed_out()),
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = app.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
    drop(place);
}
