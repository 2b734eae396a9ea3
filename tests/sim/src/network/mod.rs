//! A bad network between two peers: delay, stalls, limited bandwidth, and connections that break after any
//! byte.
//!
//! [`BadNetwork`] is a TCP proxy. [`Conditions`] applies the same conditions to any two byte streams, so
//! that tests can have this network in memory and in virtual time.

mod carry;
mod conditions;
mod config;
mod pipe;

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

pub use carry::Ended;
pub use conditions::{Conditions, Direction, Statistics};
pub use config::BadNetworkConfig;

/// The proxy. Dropping it breaks all connections.
#[derive(Debug)]
pub struct BadNetwork {
    address: SocketAddr,
    conditions: Conditions,
    task: AbortHandle,
}

impl BadNetwork {
    /// Listens on a free port of the loopback address, and forwards connections to `target`.
    pub async fn start(target: SocketAddr, config: BadNetworkConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let conditions = Conditions::new(config);
        let task = tokio::spawn(serve(listener, target, conditions.clone())).abort_handle();
        Ok(Self { address, conditions, task })
    }

    /// The address to connect to instead of the target's.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Gives access to the network's conditions.
impl Deref for BadNetwork {
    type Target = Conditions;

    fn deref(&self) -> &Conditions {
        &self.conditions
    }
}

impl Drop for BadNetwork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, conditions: Conditions) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(pass_on(client, target, conditions.clone()));
                }
                Err(error) => {
                    // out of file descriptors: later clients find no listener
                    tracing::warn!(%error, "the bad network no longer accepts connections");
                    return;
                }
            },
            () = conditions.next_cut() => conditions.cut(),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass_on(mut client: TcpStream, target: SocketAddr, conditions: Conditions) {
    conditions.passable().await;
    let mut server = match TcpStream::connect(target).await {
        Ok(server) => server,
        Err(error) => return tracing::debug!(%error, %target, "cannot connect to the target"),
    };
    // the kernel must not add its own delay
    for stream in [&client, &server] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    }
    // dropping these halves sends no shutdown: a cut connection just breaks
    let ended = conditions.carry(client.split(), server.split()).await;
    if ended == Ended::Cut {
        for stream in [&client, &server] {
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!(%error, "cannot reset a connection; it will be closed in order");
            }
        }
    }
}
