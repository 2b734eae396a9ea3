//! The VIN by DoIP: the one that a gateway announces, or else the one that it tells when it is asked.

use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::future::BoxFuture;

use crate::config::doip::NetworkConfig;
use crate::protocol::doip::connection::{ConnectionError, ConnectionSettings, Event};
use crate::protocol::doip::discovery::{Destination, Discovery, DiscoveryEvent, Gateway, Question};
use crate::protocol::doip::{HeaderNackCode, LogicalAddress};
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::client::{Client, ClientError, ClientEvent};
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::network::{LinkError, Network};
use crate::vehicle::vin::{Candidate, GatewayQuestion, VinSource};

/// Gateways that are asked at a time; more have the same VIN to tell.
const MAX_ASKED: usize = 4;
/// No longer message is expected, in bytes.
const MAX_ANSWER: usize = 4096;
/// How long other gateways have to agree or disagree with the first.
const AGREE_TIME: Duration = Duration::from_millis(50);
/// A host that was named and has not identified itself for so long is connected with all the same; A_DoIP_Announce_Wait lets an
/// entity take so long.
const IDENTIFICATION_TIME: Duration = Duration::from_millis(500);
/// Reasons that are kept; more of them say nothing new.
const MAX_REASONS: usize = 8;

/// Looks for the VIN among the gateways that discovery finds, and at the host that was named.
pub struct VinSearch {
    settings: ConnectionSettings,
    tls: bool,
    until: Instant,
    /// The host that was named, and when it is connected with although it has not identified itself.
    silent_host: Option<(SocketAddr, Instant)>,
    seen: Vec<LogicalAddress>,
    asked: Vec<Asked>,
    told: Vec<Candidate>,
    reasons: Vec<String>,
}

struct Asked {
    /// Not known before routing is active where the gateway has not identified itself.
    gateway: Option<LogicalAddress>,
    client: Client,
    question: GatewayQuestion,
    must_be_confirmed: bool,
    /// Why it has to be tried again.
    last_error: Option<String>,
}

impl VinSearch {
    /// Looks until then; a gateway that has to be asked is, with a connection of these settings.
    pub fn new(settings: ConnectionSettings, tls: bool, until: Instant) -> Self {
        Self {
            settings,
            tls,
            until,
            silent_host: None,
            seen: Vec::new(),
            asked: Vec::new(),
            told: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// The same, which also asks the one host of the network, if it has not identified itself by then.
    #[must_use]
    pub fn with_silent_host(self, host: SocketAddr, at: Instant) -> Self {
        Self { silent_host: Some((host, at)), ..self }
    }

    /// What was told, in order.
    pub fn into_told(self) -> Vec<Candidate> {
        self.told
    }

    /// Why nothing was told, for each gateway; empty where none was found.
    pub fn reasons(&self) -> Vec<String> {
        self.reasons.iter().cloned().chain(self.asked.iter().map(Asked::waits_for)).collect()
    }

    /// When [`VinSearch::poll`] is to be called although nothing happened.
    pub fn poll_timeout(&self) -> Instant {
        let repetitions = self.asked.iter().filter_map(|asked| asked.question.poll_timeout());
        let silent_host = self.silent_host.map(|(_, at)| at);
        repetitions.chain(silent_host).fold(self.until, Instant::min)
    }

    /// A host refused what it was asked by UDP.
    pub fn handle_refused(&mut self, from: SocketAddr, code: HeaderNackCode) {
        self.note(format!("{from} refuses to be asked by UDP: {code}"));
    }

    /// Looks at what discovery knows, and goes on asking; ready when nothing more is to be expected.
    pub fn poll(&mut self, cx: &mut Context<'_>, network: &dyn Network, discovery: &Discovery) -> Poll<()> {
        for gateway in discovery.gateways() {
            self.look_at(gateway);
        }
        self.connect_with_silent_host(discovery);
        let (mut told, mut failed) = (Vec::new(), Vec::new());
        self.asked.retain_mut(|asked| match asked.poll(cx, network, now()) {
            Poll::Pending => true,
            Poll::Ready(Ok((vin, gateway))) => {
                told.push((vin, gateway));
                false
            }
            Poll::Ready(Err(why)) => {
                tracing::debug!(gateway = %asked.name(), %why, "no VIN from the gateway");
                failed.push(format!("{}: {why}", asked.name()));
                false
            }
        });
        told.into_iter().for_each(|(vin, gateway)| self.tell(vin, gateway));
        failed.into_iter().for_each(|why| self.note(why));
        if self.until <= now() || self.is_hopeless(discovery) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Everybody who was there has answered, and will say the same again.
    fn is_hopeless(&self, discovery: &Discovery) -> bool {
        let gateways = discovery.gateways();
        let all_seen = gateways.iter().all(|gateway| self.seen.contains(&gateway.announcement.address));
        let nothing_waits = self.asked.is_empty() && self.told.is_empty() && self.silent_host.is_none();
        all_seen && !gateways.is_empty() && nothing_waits && discovery.is_done_asking()
    }

    fn look_at(&mut self, gateway: &Gateway) {
        let address = gateway.announcement.address;
        match gateway.announcement.vin() {
            Ok(vin) => {
                self.asked.retain(|asked| asked.gateway != Some(address));
                self.tell(vin, address);
            }
            Err(error) => {
                if !self.seen.contains(&address) && self.asked.len() < MAX_ASKED {
                    tracing::debug!(gateway = %address, %error, "no VIN is announced; asking for it");
                    let version = gateway.spoken(self.settings.version);
                    let settings = ConnectionSettings { version, ..self.settings };
                    let client = Client::new(gateway.address, settings, self.tls);
                    self.asked.push(Asked::new(Some(address), client));
                    self.seen.push(address);
                }
            }
        }
    }

    fn connect_with_silent_host(&mut self, discovery: &Discovery) {
        let Some((host, _)) = self.silent_host.take_if(|(_, at)| *at <= now()) else { return };
        if discovery.gateways().is_empty() {
            tracing::debug!(%host, "it has not identified itself; connecting with it all the same");
            self.note(format!("{host} does not identify itself by UDP"));
            self.asked.push(Asked::new(None, Client::new(host, self.settings, self.tls)));
        }
    }

    fn tell(&mut self, vin: Vin, address: LogicalAddress) {
        if self.told.iter().any(|told| told.address == address.into()) {
            return;
        }
        if self.told.is_empty() {
            self.until = self.until.min(now() + AGREE_TIME);
        }
        self.told.push(Candidate { vin, source: VinSource::Doip, address: address.into() });
    }

    fn note(&mut self, reason: String) {
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

/// The VIN and the address of the gateway that answered, or the reason why the gateway will give no VIN.
type GatewayResult = Result<(Vin, LogicalAddress), String>;

impl Asked {
    fn new(gateway: Option<LogicalAddress>, client: Client) -> Self {
        let question = GatewayQuestion::default();
        Self { gateway, client, question, must_be_confirmed: false, last_error: None }
    }

    fn name(&self) -> String {
        match self.gateway {
            Some(gateway) => format!("gateway {gateway} at {}", self.client.gateway()),
            None => self.client.gateway().to_string(),
        }
    }

    /// What it has not done by now.
    fn waits_for(&self) -> String {
        let what = match &self.last_error {
            Some(error) => error.clone(),
            None if self.question.was_busy() => "it answers 22 F190 with busy (0x21) every time".to_owned(),
            None if self.question.is_asked() => "it has not answered 22 F190 in time".to_owned(),
            None if self.must_be_confirmed => {
                "nobody confirmed the routing activation in the vehicle in time".to_owned()
            }
            None if self.client.is_connected() => {
                "it has not answered the routing activation in time".to_owned()
            }
            None => "no connection came about in time".to_owned(),
        };
        format!("{}: {what}", self.name())
    }

    /// Moves the connection along and asks when a question is due.
    fn poll(&mut self, cx: &mut Context<'_>, network: &dyn Network, now: Instant) -> Poll<GatewayResult> {
        loop {
            if let Some(request) = self.question.poll_transmit(now)
                && let Some(gateway) = self.gateway
                && let Err(error) = self.client.send(gateway, request)
            {
                return Poll::Ready(Err(error.to_string()));
            }
            let event = ready!(self.client.poll(cx, network));
            if let Some(result) = self.handle_event(now, event) {
                return Poll::Ready(result);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: ClientEvent) -> Option<GatewayResult> {
        match event {
            ClientEvent::Active { entity } => {
                self.last_error = None;
                self.gateway.get_or_insert(entity);
                self.question.handle_active(now);
            }
            ClientEvent::Message(Event::Received { source, data }) => {
                let answer = self.question.handle_response(now, &data)?;
                let gateway = self.gateway.unwrap_or(source);
                return Some(answer.map(|vin| (vin, gateway)).map_err(|reason| reason.to_string()));
            }
            ClientEvent::Message(Event::SendFailed { failure, .. }) => return Some(Err(failure.to_string())),
            ClientEvent::Down(error) if error.may_pass() => self.handle_down(&error),
            ClientEvent::Down(error) => return Some(Err(error.to_string())),
            ClientEvent::ConfirmationRequired => self.must_be_confirmed = true,
            ClientEvent::Message(_) => {}
        }
        None
    }

    /// The client connects again while there is time.
    fn handle_down(&mut self, error: &ClientError) {
        let is_lost = matches!(
            error,
            ClientError::Connection(ConnectionError::ClosedByGateway | ConnectionError::Stream(_))
        );
        let before = match () {
            () if !is_lost => "",
            () if self.question.is_asked() => "22 F190 was not answered: ",
            () if self.must_be_confirmed => "nobody confirmed the routing activation in the vehicle: ",
            () => "the routing activation was not answered: ",
        };
        self.last_error = Some(format!("{before}{error}"));
        self.question.handle_lost();
        self.must_be_confirmed = false;
    }
}

/// A network that is being opened.
pub type OpeningNetwork = BoxFuture<'static, Result<Box<dyn Network>, LinkError>>;

/// What reading the VIN on a network came to.
pub struct DoipReading {
    /// What was told, in order.
    pub told: Vec<Candidate>,
    /// Why nothing was told, for people; empty where something was.
    pub why_not: String,
    /// The network was not ready in time: it is still being opened.
    pub late: Option<OpeningNetwork>,
}

impl DoipReading {
    fn failed(why_not: String) -> Self {
        Self { told: Vec::new(), why_not, late: None }
    }
}

/// Opens a network and reads the VIN on it, both within this time.
pub async fn open_and_read(
    mut opening: OpeningNetwork,
    config: NetworkConfig,
    budget: Duration,
) -> DoipReading {
    let until = now() + budget;
    let network = match tokio::time::timeout(budget, &mut opening).await {
        Ok(Ok(network)) => network,
        Ok(Err(error)) => {
            tracing::warn!(%error, "no VIN can be read by DoIP here");
            return DoipReading::failed(error.problem);
        }
        Err(_) => {
            let seconds = budget.as_secs_f32();
            let why = format!("the network has not got its address within the {seconds} s that there were");
            return DoipReading { late: Some(opening), ..DoipReading::failed(why) };
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
) -> DoipReading {
    let mut explorer = Explorer::new(network);
    explorer.ask_everybody(now(), Question::Anybody);
    let mut search = VinSearch::new(settings, tls, now() + budget);
    let everybody = explorer.network().everybody();
    if let [Destination::Host(host)] = everybody.as_slice() {
        // where there is little time, most of it is for the connection
        search = search.with_silent_host(*host, now() + IDENTIFICATION_TIME.min(budget / 3));
    }
    let mut lost = None;
    loop {
        let until = search.poll_timeout();
        let step = std::future::poll_fn(|cx| {
            if let Err(error) = poll_explorer(cx, &mut explorer, &mut search) {
                tracing::debug!(%error, "lost the DoIP network");
                lost = Some(format!("the network is lost: {error}"));
                return Poll::Ready(true);
            }
            let done = search.poll(cx, explorer.network(), explorer.discovery()).is_ready();
            // the deadline may have come nearer
            if done || search.poll_timeout() != until { Poll::Ready(done) } else { Poll::Pending }
        });
        let is_over = match tokio::time::timeout_at(until.into(), step).await {
            Ok(done) => done,
            Err(_) => search.poll_timeout() <= until && until >= search.until,
        };
        if is_over {
            let why_not = lost.unwrap_or_else(|| why_not(&search, &explorer));
            return DoipReading { told: search.into_told(), why_not, late: None };
        }
    }
}

/// Moves datagrams along; as long as nobody is known, everybody is asked over and over: a question may be lost, and a
/// gateway, or an address of ours, may come later.
fn poll_explorer(
    cx: &mut Context<'_>,
    explorer: &mut Explorer,
    search: &mut VinSearch,
) -> std::io::Result<()> {
    loop {
        while let Poll::Ready(event) = explorer.poll(cx) {
            let event = event?;
            tracing::debug!(?event, "DoIP");
            if let DiscoveryEvent::Refused { from, code } = event {
                search.handle_refused(from, code);
            }
        }
        let discovery = explorer.discovery();
        if !(discovery.gateways().is_empty() && discovery.is_done_asking() && explorer.asks_anybody()) {
            return Ok(());
        }
        explorer.ask_everybody(now(), Question::Anybody);
    }
}

/// Why nothing was told; nothing where something was.
fn why_not(search: &VinSearch, explorer: &Explorer) -> String {
    if !search.told.is_empty() {
        return String::new();
    }
    let reasons = search.reasons();
    if !reasons.is_empty() {
        return reasons.join("; ");
    }
    match explorer.send_error() {
        Some(error) => format!("no gateway announced itself, and none could be asked: {error}"),
        None => "no gateway announced itself, or answered when everybody was asked".to_owned(),
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
