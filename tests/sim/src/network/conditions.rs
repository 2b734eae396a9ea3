//! The conditions of a network, and the handle that changes them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::BadNetworkConfig;

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client, which opened the connection, to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// Counters of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Connections that were opened.
    pub connections: u64,
    /// Connections that were cut.
    pub cut: u64,
    /// Bytes that arrived at the server.
    pub to_server: u64,
    /// Bytes that arrived at the client.
    pub to_client: u64,
}

/// The conditions that apply to every connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weather {
    /// Delay from one end to the other.
    pub(super) delay: Duration,
    pub(super) stalled_until: Option<Instant>,
    pub(super) bytes_per_second: Option<u32>,
}

#[derive(Debug)]
struct Cuts {
    /// Cancelled by the next cut.
    cut: CancellationToken,
    cut_every: Option<Duration>,
    next_cut: Option<Instant>,
    pause_after_cut: Duration,
    impassable_until: Option<Instant>,
    /// The bytes that may still arrive in each direction before all connections are cut.
    bytes_left: [Option<u64>; 2],
}

#[derive(Debug)]
struct NetworkState {
    weather: watch::Sender<Weather>,
    /// Signals that the cuts were changed by a caller.
    changed: watch::Sender<()>,
    cuts: Mutex<Cuts>,
    connections: AtomicU64,
    cut: AtomicU64,
    passed: [AtomicU64; 2],
}

/// The conditions of a network. Clones refer to the same network.
#[derive(Debug, Clone)]
pub struct Conditions {
    shared: Arc<NetworkState>,
}

impl Conditions {
    /// Creates a network with these conditions.
    pub fn new(config: BadNetworkConfig) -> Self {
        let weather = Weather {
            delay: config.round_trip / 2,
            stalled_until: None,
            bytes_per_second: config.bytes_per_second,
        };
        let cuts = Cuts {
            cut: CancellationToken::new(),
            cut_every: config.cut_every,
            next_cut: config.cut_every.map(|every| Instant::now() + every),
            pause_after_cut: config.pause_after_cut,
            impassable_until: None,
            bytes_left: [None; 2],
        };
        let shared = NetworkState {
            weather: watch::Sender::new(weather),
            changed: watch::Sender::new(()),
            cuts: Mutex::new(cuts),
            connections: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            passed: Default::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn cuts(&self) -> MutexGuard<'_, Cuts> {
        self.shared.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts every open connection, wherever its bytes are.
    pub fn cut(&self) {
        let mut cuts = self.cuts();
        let now = Instant::now();
        cuts.next_cut = cuts.cut_every.map(|every| now + every);
        cuts.impassable_until = Some(now + cuts.pause_after_cut);
        std::mem::take(&mut cuts.cut).cancel();
    }

    /// Cuts every connection as soon as `bytes` more have arrived in this direction.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        if let Some(left) = self.cuts().bytes_left.get_mut(direction as usize) {
            *left = Some(bytes);
        }
        if bytes == 0 {
            self.spend(direction, 0);
        }
    }

    /// Cuts all connections at this interval from now on; `None` stops that.
    pub fn cut_every(&self, every: Option<Duration>) {
        let mut cuts = self.cuts();
        cuts.cut_every = every;
        cuts.next_cut = every.map(|every| Instant::now() + every);
        drop(cuts);
        self.shared.changed.send_replace(());
    }

    /// Holds back all bytes in both directions for `duration`. No byte is lost.
    pub fn stall(&self, duration: Duration) {
        let until = Instant::now() + duration;
        self.shared.weather.send_modify(|weather| weather.stalled_until = Some(until));
    }

    /// Changes the round-trip time. Bytes in flight keep their delay, and no byte overtakes another.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = round_trip / 2);
    }

    /// Changes the bandwidth of each direction of each connection, in bytes per second.
    pub fn set_bytes_per_second(&self, rate: Option<u32>) {
        self.shared.weather.send_modify(|weather| weather.bytes_per_second = rate);
    }

    /// The counters so far.
    pub fn statistics(&self) -> Statistics {
        let [to_server, to_client] = &self.shared.passed;
        Statistics {
            connections: self.shared.connections.load(Ordering::Relaxed),
            cut: self.shared.cut.load(Ordering::Relaxed),
            to_server: to_server.load(Ordering::Relaxed),
            to_client: to_client.load(Ordering::Relaxed),
        }
    }

    /// Waits until connections are let through again after a cut.
    pub async fn passable(&self) {
        loop {
            let until = self.cuts().impassable_until;
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Waits until the next regular cut is due. The caller then makes the cut by [`Conditions::cut`].
    pub async fn next_cut(&self) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            let at = self.cuts().next_cut;
            let due = async {
                match at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    // a cut by the caller may have moved the deadline
                    if self.cuts().next_cut == at { return }
                }
                _ = changed.changed() => {}
            }
        }
    }

    /// Counts a new connection. Returns the token that the next cut cancels.
    pub(super) fn connect(&self) -> CancellationToken {
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.cuts().cut.clone()
    }

    /// Counts a connection that was cut.
    pub(super) fn count_cut(&self) {
        self.shared.cut.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn weather(&self) -> watch::Receiver<Weather> {
        self.shared.weather.subscribe()
    }

    /// The number of `bytes` that may arrive before the connection is cut.
    pub(super) fn allowed(&self, direction: Direction, bytes: usize) -> usize {
        let left = self.cuts().bytes_left.get(direction as usize).copied().flatten();
        left.map_or(bytes, |left| bytes.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }

    /// Counts `bytes` that have arrived. Returns whether these were the last ones before a cut.
    pub(super) fn spend(&self, direction: Direction, bytes: usize) -> bool {
        if let Some(passed) = self.shared.passed.get(direction as usize) {
            passed.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        let mut cuts = self.cuts();
        let Some(slot) = cuts.bytes_left.get_mut(direction as usize) else { return false };
        let Some(left) = slot else { return false };
        *left = left.saturating_sub(bytes as u64);
        let is_last = *left == 0;
        if is_last {
            *slot = None;
            drop(cuts);
            self.cut();
        }
        is_last
    }
}
