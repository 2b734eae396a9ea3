//! The VIN by DoIP: the one that a gateway announces, or else the one that it tells when it is asked.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::can::BoxFuture;

use super::LogicalAddress;
use super::client::{Client, ClientEvent};
use super::connection::{ConnectionSettings, Event};
use super::discovery::{Discovery, Gateway, Question};
use super::explorer::Explorer;
use super::io::{LinkError, Network};
use super::network::NetworkConfig;
use crate::vin::{Candidate, Vin, VinSource};

/// ReadDataByIdentifier, VIN (ISO 14229-1, C.1).
const READ_VIN: [u8; 3] = [0x22, 0xF1, 0x90];
const POSITIVE: [u8; 3] = [0x62, 0xF1, 0x90];
const RESPONSE_PENDING: [u8; 3] = [0x7F, 0x22, 0x78];
/// Gateways that are asked at a time; more have the same VIN to tell.
const MAX_ASKED: usize = 4;
/// No longer message is expected, in bytes.
const MAX_ANSWER: usize = 4096;
/// How long other gateways have to agree or disagree with the first.
const AGREE_TIME: Duration = Duration::from_millis(50);

/// Looks for the VIN among the gateways that discovery finds.
pub struct VinSearch {
    settings: ConnectionSettings,
    tls: bool,
    until: Instant,
    seen: Vec<LogicalAddress>,
    asked: Vec<Asked>,
    told: Vec<Candidate>,
}

struct Asked {
    gateway: LogicalAddress,
    client: Client,
}

impl VinSearch {
    /// Looks until then; a gateway that has to be asked is, with a connection of these settings.
    pub fn new(settings: ConnectionSettings, tls: bool, until: Instant) -> Self {
        Self { settings, tls, until, seen: Vec::new(), asked: Vec::new(), told: Vec::new() }
    }

    /// What was told, in order.
    pub fn into_told(self) -> Vec<Candidate> {
        self.told
    }

    /// When [`VinSearch::poll`] is to be called although nothing happened.
    pub fn poll_timeout(&self) -> Instant {
        self.until
    }

    /// Looks at what discovery knows, and goes on asking; ready when nothing more is to be expected.
    pub fn poll(&mut self, cx: &mut Context<'_>, network: &dyn Network, discovery: &Discovery) -> Poll<()> {
        for gateway in discovery.gateways() {
            self.look_at(gateway);
        }
        let mut told = Vec::new();
        self.asked.retain_mut(|asked| {
            while let Poll::Ready(event) = asked.client.poll(cx, network) {
                match answer(asked, event) {
                    Answer::None => {}
                    Answer::Told(vin) => {
                        told.push((vin, asked.gateway));
                        return false;
                    }
                    Answer::Nothing => return false,
                }
            }
            true
        });
        told.into_iter().for_each(|(vin, gateway)| self.tell(vin, gateway));
        if self.until <= now() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn look_at(&mut self, gateway: &Gateway) {
        let address = gateway.announcement.address;
        match gateway.announcement.vin() {
            Ok(vin) => {
                if !self.told.iter().any(|told| told.address == address.into()) {
                    self.asked.retain(|asked| asked.gateway != address);
                    self.tell(vin, address);
                }
            }
            Err(error) => {
                if !self.seen.contains(&address) && self.asked.len() < MAX_ASKED {
                    tracing::debug!(gateway = %address, %error, "no VIN is announced; asking for it");
                    let version = gateway.spoken(self.settings.version);
                    let settings = ConnectionSettings { version, ..self.settings };
                    let client = Client::new(gateway.address, settings, self.tls);
                    self.asked.push(Asked { gateway: address, client });
                    self.seen.push(address);
                }
            }
        }
    }

    fn tell(&mut self, vin: Vin, address: LogicalAddress) {
        if self.told.is_empty() {
            self.until = self.until.min(now() + AGREE_TIME);
        }
        self.told.push(Candidate { vin, source: VinSource::Doip, address: address.into() });
    }
}

enum Answer {
    /// None yet.
    None,
    Told(Vin),
    /// None will come.
    Nothing,
}

fn answer(asked: &mut Asked, event: ClientEvent) -> Answer {
    match event {
        ClientEvent::Active => match asked.client.send(asked.gateway, &READ_VIN) {
            Ok(_) => Answer::None,
            Err(error) => {
                tracing::debug!(gateway = %asked.gateway, %error, "the VIN is not asked for");
                Answer::Nothing
            }
        },
        ClientEvent::Message(Event::Received { data, .. }) => match data.as_slice() {
            [a, b, c, vin @ ..] if [*a, *b, *c] == POSITIVE => match Vin::try_from(vin) {
                Ok(vin) => Answer::Told(vin),
                Err(_) => Answer::Nothing,
            },
            [a, b, c, ..] if [*a, *b, *c] == RESPONSE_PENDING => Answer::None,
            [0x7F, 0x22, ..] => Answer::Nothing,
            _ => Answer::None,
        },
        ClientEvent::Message(Event::SendFailed { failure, .. }) => {
            tracing::debug!(gateway = %asked.gateway, %failure, "the gateway was not asked for the VIN");
            Answer::Nothing
        }
        ClientEvent::Down(error) => {
            tracing::debug!(gateway = %asked.gateway, %error, "the gateway cannot be asked for the VIN");
            Answer::Nothing
        }
        ClientEvent::Message(_) | ClientEvent::ConfirmationRequired => Answer::None,
    }
}

/// Opens a network and reads the VIN on it, both within this time.
pub async fn open_and_read(
    opening: BoxFuture<'static, Result<Box<dyn Network>, LinkError>>,
    config: NetworkConfig,
    budget: Duration,
) -> Vec<Candidate> {
    let until = now() + budget;
    let network = match tokio::time::timeout(budget, opening).await {
        Ok(Ok(network)) => network,
        Ok(Err(error)) => {
            tracing::warn!(%error, "no VIN can be read by DoIP here");
            return Vec::new();
        }
        Err(_) => {
            tracing::debug!("the DoIP network was not ready in time");
            return Vec::new();
        }
    };
    let settings = config.connection(LogicalAddress::new(config.tester_address), MAX_ANSWER, budget);
    read(network, settings, config.tls, until.saturating_duration_since(now())).await
}

/// Reads the VIN on a network within this time.
pub async fn read(
    network: Box<dyn Network>,
    settings: ConnectionSettings,
    tls: bool,
    budget: Duration,
) -> Vec<Candidate> {
    let mut explorer = Explorer::new(network);
    explorer.ask_everybody(now(), Question::Anybody);
    let mut search = VinSearch::new(settings, tls, now() + budget);
    loop {
        let until = search.poll_timeout();
        let step = std::future::poll_fn(|cx| {
            while let Poll::Ready(event) = explorer.poll(cx) {
                match event {
                    Ok(event) => tracing::debug!(?event, "DoIP"),
                    Err(error) => {
                        tracing::debug!(%error, "lost the DoIP network");
                        return Poll::Ready(true);
                    }
                }
            }
            let done = search.poll(cx, explorer.network(), explorer.discovery()).is_ready();
            // the deadline may have come nearer
            if done || search.poll_timeout() != until { Poll::Ready(done) } else { Poll::Pending }
        });
        match tokio::time::timeout_at(until.into(), step).await {
            Ok(true) | Err(_) => return search.into_told(),
            Ok(false) => {}
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
