//! The addresses of host names, from the system's resolver.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use connector_hal::future::BoxFuture;
use tokio::net::lookup_host;
use tokio::sync::watch;

use super::address_book::AddressBook;
use super::happy_eyeballs::KnownAddresses;

/// The resolver's answer about a host.
pub(super) type HostAnswer = Result<Vec<IpAddr>, Arc<io::Error>>;

/// Looks up the addresses of a host.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Asks for the addresses of hosts, once at a time for each host, and keeps the last answers. A question that no connect
/// waits for any longer still gets its answer, which updates the address book.
#[derive(Clone)]
pub(super) struct HostResolver {
    lookup: Lookup,
    state: Arc<Mutex<ResolverState>>,
}

#[derive(Default)]
struct ResolverState {
    book: AddressBook,
    /// The hosts about which the system is being asked. The system's resolver can hang for minutes, and each
    /// question takes a thread.
    asked: HashMap<String, watch::Receiver<Option<HostAnswer>>>,
}

impl HostResolver {
    /// The system's resolver.
    pub(super) fn system() -> Self {
        Self::new(Arc::new(|host| {
            Box::pin(async move {
                let found = lookup_host((host.as_str(), 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        }))
    }

    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, state: Arc::default() }
    }

    /// What is known about the host without asking.
    pub(super) fn known(&self, host: &str) -> KnownAddresses {
        self.with(|state| state.book.known(host))
    }

    /// Calls the function with the address book.
    pub(super) fn note(&self, note: impl FnOnce(&mut AddressBook)) {
        self.with(|state| note(&mut state.book));
    }

    /// Asks about the host, unless a question about it has no answer yet.
    pub(super) fn ask(&self, host: &str) -> watch::Receiver<Option<HostAnswer>> {
        if let Some(asked) = self.with(|state| state.asked.get(host).cloned()) {
            return asked;
        }
        let (sender, receiver) = watch::channel(None);
        self.with(|state| state.asked.insert(host.to_owned(), receiver.clone()));
        let (resolver, host) = (self.clone(), host.to_owned());
        tokio::spawn(async move {
            let answer = match (resolver.lookup)(host.clone()).await {
                Ok(addresses) if addresses.is_empty() => Err(io::ErrorKind::NotFound.into()),
                other => other,
            };
            resolver.with(|state| {
                state.asked.remove(&host);
                if let Ok(addresses) = &answer {
                    state.book.handle_answer(&host, addresses);
                }
            });
            sender.send_replace(Some(answer.map_err(Arc::new)));
        });
        receiver
    }

    fn with<T>(&self, use_state: impl FnOnce(&mut ResolverState) -> T) -> T {
        use_state(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for HostResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostResolver")
    }
}

/// Waits for the answer. Cancel-safe.
pub(super) async fn answer(asked: &mut watch::Receiver<Option<HostAnswer>>) -> HostAnswer {
    match asked.wait_for(Option::is_some).await {
        Ok(answer) => answer.clone().unwrap_or_else(|| Err(ended())),
        Err(_) => Err(ended()),
    }
}

/// The runtime ended the question.
fn ended() -> Arc<io::Error> {
    Arc::new(io::ErrorKind::Interrupted.into())
}
