//! A bad network between two peers: delay, stalls, little bandwidth, and connections that break after any byte.
//!
//! [`BadNetwork`] is a TCP proxy. [`Conditions`] is what it does to each connection, for any two byte streams, so that
//! the same network can be had in memory and in virtual time.

mod conditions;
mod pipe;

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

pub use conditions::{Conditions, Direction, Ended, Statistics};

/// How bad it is from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BadNetworkConfig {
    /// The round trip; half of it each way.
    pub round_trip: Duration,
    /// All connections are cut this often.
    pub cut_every: Option<Duration>,
    /// After a cut, nobody gets through for this long.
    pub pause_after_cut: Duration,
    /// What each direction of each connection takes, in bytes a second.
    pub bytes_per_second: Option<u32>,
}

/// The proxy; dropped, it breaks all connections and is gone.
#[derive(Debug)]
pub struct BadNetwork {
    address: SocketAddr,
    conditions: Conditions,
    task: AbortHandle,
}

impl BadNetwork {
    /// Listens on a free port of the loopback address, and passes on to `target`.
    pub async fn start(target: SocketAddr, config: BadNetworkConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let conditions = Conditions::new(config);
        let task = tokio::spawn(serve(listener, target, conditions.clone())).abort_handle();
        Ok(Self { address, conditions, task })
    }

    /// Where to connect to, instead of to the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Everything that can be done to the network.
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
                    // out of file descriptors: whoever wants in finds nobody
                    tracing::warn!(%error, "the bad network accepts nobody any more");
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
        Err(error) => return tracing::debug!(%error, %target, "the target does not answer"),
    };
    // what is delayed here is not to be delayed again by the kernel
    for stream in [&client, &server] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    }
    // these halves do not take leave when dropped: a cut connection just breaks
    let ended = conditions.carry(client.split(), server.split()).await;
    if ended == Ended::Cut {
        for stream in [&client, &server] {
            if let Err(error) = stream.set_zero_linger() {
                tracing::debug!(%error, "a connection ends more politely than it should");
            }
        }
    }
}
