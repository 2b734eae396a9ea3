//! A session on two virtual buses, the operator's end of its link, and a network between them that can delay,
//! stall, and be cut.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::policy::{Policy, SharedPolicy};
use connector_agent::relay::connection::{CloseReason, RelayConnection, RelaySettings};
use connector_agent::relay::limits::RelayLimits;
use connector_agent::relay::link::{Link, LinkError, Role};
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::{EventCode, Payload, PduFlags, Tag};
use connector_agent::relay::wire::request::Request;
use connector_agent::vehicle::hardware::Hardware;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{CanCapabilities, CanError, CanFrame};
use connector_hal::kline::sim::{LineNode, SimLine};
use connector_hal::kline::{KLine, KLineError, KLineEvent, Signal};
use connector_hal::timer::TimerKind;
use serde_json::{Value, json};
use uuid::Uuid;

use super::gateways::Gateways;
use crate::config::hs;
use crate::hardware::HardwareBuilder;
use crate::scripted_can::{Script, ScriptedCan};
use crate::{SECOND, now};

pub const UUID: Uuid = Uuid::from_u128(0x97a0_0001_0000_4000_8000_0000_0000_0001);

pub const PLAIN: PduFlags = PduFlags { chained: false, confirm: false };
pub const CHAINED: PduFlags = PduFlags { chained: true, confirm: false };
pub const CONFIRM: PduFlags = PduFlags { chained: false, confirm: true };

/// The maximum number of turns at one time; more would be an endless loop on a real device.
const MAX_TURNS: u32 = 20_000;

/// A record that the operator's end of the link received.
#[derive(Debug, Clone, PartialEq)]
pub enum Got {
    Frame(CanFrame),
    Pdu { address: u32, data: Vec<u8> },
    Event { code: EventCode, detail: u16, value: u32 },
    Terminal15(Option<bool>),
}

/// A [`Got`] with its channel and its time on the bus, by the connector's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    pub channel: u16,
    pub at: Duration,
    pub got: Got,
}

/// The state of the network between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Each message takes this time, in either direction.
    Up(Duration),
    /// Messages toward the connector wait until the network is up again.
    Stalled,
    /// Messages are lost, and both ends know that the link is down.
    Down,
}

pub struct Rig {
    /// The vehicle's buses at pins 6 and 14 (CAN FD), and at pins 3 and 11 (classic).
    pub buses: [VirtualBus; 2],
    /// The K-line at pin 7.
    pub kline: SimLine,
    /// The vehicle's DoIP gateways, at pins 3 and 11.
    pub gateways: Gateways,
    pub session: RelayConnection,
    /// The policy of the session.
    pub policy: SharedPolicy,
    pub operator: Link,
    pub heard: Vec<Heard>,
    pub texts: Vec<Envelope>,
    /// The texts about the state of the policy, which come at any time.
    pub policy_states: Vec<Envelope>,
    /// The texts of all events that have one.
    pub event_texts: Vec<String>,
    /// The errors that the operator's end found in the connector's messages.
    pub link_errors: Vec<LinkError>,
    /// While true, no device can be opened.
    pub opening_fails: Arc<AtomicBool>,
    /// While true, adapters have the bit rate of their bus only.
    pub bit_rate_is_fixed: Arc<AtomicBool>,
    start: Instant,
    network: Network,
    to_connector: VecDeque<(Instant, Bytes)>,
    to_operator: VecDeque<(Instant, Bytes)>,
    /// The messages that reached the operator, as bytes.
    pub messages: Vec<Bytes>,
    /// While false, the operator reads and acknowledges nothing.
    pub operator_reads: bool,
    /// While false, the connector's socket accepts no message.
    pub socket_takes: bool,
}

/// An exclusively open interface of the K-line, like a serial device.
struct Exclusive {
    line: LineNode,
    _held: Arc<()>,
}

impl KLine for Exclusive {
    fn device(&self) -> &str {
        self.line.device()
    }

    fn set_bit_rate(&mut self, bit_rate: u32) -> Result<(), KLineError> {
        self.line.set_bit_rate(bit_rate)
    }

    fn transmit(&mut self, signal: Signal) -> Result<(), KLineError> {
        self.line.transmit(signal)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<KLineEvent, KLineError>> {
        self.line.poll_event(cx)
    }
}

fn device_error(kind: std::io::ErrorKind, device: &str) -> (String, std::io::Error) {
    (device.to_owned(), kind.into())
}

/// Both buses, the K-line, the DoIP network and terminal 15.
fn hardware(
    buses: &[VirtualBus; 2],
    kline: &SimLine,
    gateways: &Gateways,
    opening_fails: &Arc<AtomicBool>,
    bit_rate_is_fixed: &Arc<AtomicBool>,
) -> Hardware {
    let (buses, gateways, kline) = (buses.clone(), gateways.clone(), kline.clone());
    let (can_fails, kline_fails) = (Arc::clone(opening_fails), Arc::clone(opening_fails));
    let (bit_rate_is_fixed, kline_held) = (Arc::clone(bit_rate_is_fixed), Arc::new(()));
    HardwareBuilder::in_runtime_time()
        .can_port([6, 14], "can0", true)
        .named(crate::config::BUS)
        .can_port([3, 11], "can1", false)
        .named("LS")
        .open_can(move |device| {
            if can_fails.load(Ordering::Relaxed) {
                let (device, source) = device_error(std::io::ErrorKind::NotFound, device);
                return Err(CanError::Device { device, source });
            }
            let bus = if device == "can0" { &buses[0] } else { &buses[1] };
            let set_bit_rate = !bit_rate_is_fixed.load(Ordering::Relaxed);
            let capabilities = CanCapabilities { set_bit_rate, ..VirtualBus::full_capabilities() };
            Ok(Box::new(bus.attach_adapter(device, capabilities)))
        })
        .kline_port(7, "kline0", move |device| {
            let failed = if kline_fails.load(Ordering::Relaxed) {
                Some(std::io::ErrorKind::NotFound)
            } else if Arc::strong_count(&kline_held) > 1 {
                Some(std::io::ErrorKind::ResourceBusy)
            } else {
                None
            };
            if let Some(kind) = failed {
                let (device, source) = device_error(kind, device);
                return Err(KLineError::Device { device, source });
            }
            let line = kline.attach(device, 10_400);
            Ok(Box::new(Exclusive { line, _held: Arc::clone(&kline_held) }))
        })
        .doip_network(move || gateways.network())
        .terminal15()
        .build()
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    /// A new connection without a bus, over a network without delay.
    pub fn new() -> Self {
        Self::with_bus(VirtualBusConfig::default())
    }

    pub fn with_bus(config: VirtualBusConfig) -> Self {
        Self::with(config, 30 * SECOND, RelayLimits { max_channels: 256, ..RelayLimits::default() })
    }

    pub fn with_hold(hold: Duration) -> Self {
        Self::with(VirtualBusConfig::default(), hold, RelayLimits::default())
    }

    pub fn with_limits(limits: RelayLimits) -> Self {
        Self::with(VirtualBusConfig::default(), 30 * SECOND, limits)
    }

    fn with(config: VirtualBusConfig, hold: Duration, limits: RelayLimits) -> Self {
        Self::build(config, hold, limits, None, default_policy())
    }

    /// A connection on the hardware of the test, in place of the simulated buses.
    pub fn with_hardware(hardware: Hardware) -> Self {
        let limits = RelayLimits::default();
        Self::build(VirtualBusConfig::default(), 30 * SECOND, limits, Some(hardware), default_policy())
    }

    /// A connection of a connector with this policy, written as JSON.
    pub fn with_policy(settings: Value) -> Self {
        let policy = Policy::new(serde_json::from_value(settings).unwrap(), false);
        let limits = RelayLimits { max_channels: 256, ..RelayLimits::default() };
        Self::build(VirtualBusConfig::default(), 30 * SECOND, limits, None, SharedPolicy::new(policy))
    }

    /// A connection on a connector whose only CAN bus has this adapter.
    pub fn with_adapter(adapter: &(impl Script + Clone + Sync + 'static)) -> Self {
        let opened = adapter.clone();
        let hardware = HardwareBuilder::in_runtime_time()
            .can_port([6, 14], "scripted", false)
            .open_can(move |_| Ok(Box::new(ScriptedCan(opened.clone()))))
            .build();
        Self::with_hardware(hardware)
    }

    fn build(
        config: VirtualBusConfig,
        hold: Duration,
        limits: RelayLimits,
        own_hardware: Option<Hardware>,
        policy: SharedPolicy,
    ) -> Self {
        let buses = [VirtualBus::new(config.clone()), VirtualBus::new(config)];
        let opening_fails = Arc::new(AtomicBool::new(false));
        let kline = SimLine::new(TimerKind::Runtime);
        let gateways = Gateways::default();
        let bit_rate_is_fixed = Arc::new(AtomicBool::new(false));
        let hardware = own_hardware
            .unwrap_or_else(|| hardware(&buses, &kline, &gateways, &opening_fails, &bit_rate_is_fixed));
        let settings =
            RelaySettings { connection_uuid: UUID, hold, limits, hardware, policy: policy.clone() };
        let start = now();
        Self {
            buses,
            kline,
            gateways,
            session: RelayConnection::new(settings, start),
            policy,
            operator: Link::new(Role::Operator, Tag::from(UUID), start),
            heard: Vec::new(),
            texts: Vec::new(),
            policy_states: Vec::new(),
            event_texts: Vec::new(),
            link_errors: Vec::new(),
            opening_fails,
            bit_rate_is_fixed,
            start,
            network: Network::Up(Duration::ZERO),
            to_connector: VecDeque::new(),
            to_operator: VecDeque::new(),
            messages: Vec::new(),
            operator_reads: true,
            socket_takes: true,
        }
    }

    /// A connection with bus "HS" configured, at pins 6 and 14, 500 kbit/s.
    pub async fn configured() -> Self {
        let mut rig = Self::new();
        rig.configure_hs().await;
        rig
    }

    pub async fn configure_hs(&mut self) {
        let reply = self.configure(json!([hs()])).await;
        assert_eq!(reply.action, "busesConfigured", "{reply:?}");
    }

    pub fn elapsed(&self) -> Duration {
        now() - self.start
    }

    pub fn ask(&mut self, action: &str, mut message: Value) {
        if message.get("connection_uuid").is_none() {
            message["connection_uuid"] = json!(UUID);
        }
        let envelope = Envelope::new(action, &message).in_reply_to(Some("7".to_owned()));
        match Request::parse(&envelope) {
            Ok(request) => self.session.handle_request(now(), request, envelope.request_id),
            // the agent's answer to an invalid request
            Err(problem) => self.texts.push(Envelope::error(&problem, envelope.request_id)),
        }
    }

    /// Sends a request, and waits for the reply.
    pub async fn request(&mut self, action: &str, message: Value) -> Envelope {
        let before = self.texts.len();
        self.ask(action, message);
        // reports of the policy's state come between
        let replies =
            |rig: &Self| rig.texts[before..].iter().find(|text| text.action != "policyState").cloned();
        assert!(self.run_until(2 * SECOND, |rig| replies(rig).is_some()).await, "{action} is not answered");
        let reply = replies(self).unwrap();
        assert_eq!(reply.request_id.as_deref(), Some("7"), "the request's id is echoed");
        reply
    }

    pub async fn configure(&mut self, buses: Value) -> Envelope {
        self.request("configureBuses", json!({ "buses": buses })).await
    }

    pub async fn open(&mut self, channel: u16, kind: &str, config: Value) -> Envelope {
        self.request("openChannel", json!({"channel": channel, kind: config})).await
    }

    /// Opens an ISO-TP channel from 0x7E0 to 0x7E8 on bus "HS", with these additional fields.
    pub async fn open_isotp(&mut self, channel: u16, more: Value) {
        let mut config = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8});
        more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        let reply = self.open(channel, "isotp_channel", config).await;
        assert_eq!(reply.action, "channelOpened", "{reply:?}");
    }

    pub async fn open_raw(&mut self, channel: u16, config: Value) {
        let mut config = config;
        config["bus_name"] = json!("HS");
        let reply = self.open(channel, "raw_channel", config).await;
        assert_eq!(reply.action, "channelOpened", "{reply:?}");
    }

    pub fn push(&mut self, channel: u16, payload: Payload<'_>) {
        self.operator.push(now(), now(), channel, payload).unwrap();
    }

    pub fn send(&mut self, channel: u16, flags: PduFlags, data: &[u8]) {
        self.push(channel, Payload::Pdu { address: 0, flags, data });
    }

    pub fn send_frame(&mut self, channel: u16, frame: CanFrame) {
        self.push(channel, Payload::Frame(frame));
    }

    pub fn set_network(&mut self, network: Network) {
        self.network = network;
        if let Network::Up(delay) = network {
            let at = now() + delay;
            self.to_connector.iter_mut().for_each(|(due, _)| *due = (*due).min(at));
        }
    }

    /// Cuts the websocket. Messages in the network are lost.
    pub fn cut(&mut self) {
        self.set_network(Network::Down);
        self.to_connector.clear();
        self.to_operator.clear();
        self.session.interrupt(now());
        self.operator.interrupt();
    }

    /// Restores the websocket; both ends exchange what they have received.
    pub async fn resume(&mut self) {
        self.set_network(Network::Up(Duration::ZERO));
        self.operator.resume(now(), self.session.received()).unwrap();
        let received = self.operator.received();
        let reply = self.request("resumeConnection", json!({ "received": received })).await;
        assert_eq!(reply.action, "connectionResumed", "{reply:?}");
    }

    /// Passes a message to the session that the operator's end did not create.
    pub fn inject(&mut self, message: &[u8]) {
        self.session.handle_message(now(), message);
    }

    pub fn close_reason(&self) -> Option<CloseReason> {
        self.session.closed()
    }

    /// Everything received on a channel so far.
    pub fn on(&self, channel: u16) -> Vec<Got> {
        self.heard.iter().filter(|heard| heard.channel == channel).map(|heard| heard.got.clone()).collect()
    }

    pub fn pdus(&self, channel: u16) -> Vec<Vec<u8>> {
        let pdu = |got| if let Got::Pdu { data, .. } = got { Some(data) } else { None };
        self.on(channel).into_iter().filter_map(pdu).collect()
    }

    pub fn frames(&self, channel: u16) -> Vec<CanFrame> {
        let frame = |got| if let Got::Frame(frame) = got { Some(frame) } else { None };
        self.on(channel).into_iter().filter_map(frame).collect()
    }

    /// Code, detail and value of all events on a channel.
    pub fn events(&self, channel: u16) -> Vec<(EventCode, u16, u32)> {
        let event = |got| match got {
            Got::Event { code, detail, value } => Some((code, detail, value)),
            _ => None,
        };
        self.on(channel).into_iter().filter_map(event).collect()
    }

    pub fn count(&self, channel: u16, code: EventCode, detail: u16) -> usize {
        self.events(channel).iter().filter(|event| event.0 == code && event.1 == detail).count()
    }

    /// Runs both ends until nothing more happens without a change of time.
    pub async fn settle(&mut self) {
        self.exchange();
        while poll_fn(|cx| Poll::Ready(self.session.poll_drive(cx).is_ready())).await {
            self.exchange();
        }
        self.exchange();
    }

    pub async fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false).await;
    }

    /// Runs both ends until `is_so` returns true; returns false if it does not within `limit`.
    pub async fn run_until(&mut self, limit: Duration, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        let end = now() + limit;
        let mut last = now();
        let mut turns = 0;
        loop {
            self.exchange();
            if is_so(self) {
                return true;
            }
            if now() >= end {
                return false;
            }
            turns = if now() == last { turns + 1 } else { 0 };
            last = now();
            assert!(turns < MAX_TURNS, "the session never becomes idle");
            let arrivals = [self.to_connector.front(), self.to_operator.front()];
            let arrival = arrivals.into_iter().flatten().map(|(at, _)| *at).filter(|at| *at > now()).min();
            let acknowledgement = self.operator.poll_timeout().filter(|at| *at > now());
            let due = [Some(end), self.session.poll_timeout(now()), acknowledgement, arrival];
            let due = due.into_iter().flatten().min().unwrap_or(end);
            tokio::select! {
                () = poll_fn(|cx| self.session.poll_drive(cx)) => {}
                () = tokio::time::sleep_until(due.into()) => self.session.handle_timeout(now()),
            }
        }
    }

    /// Moves messages between the two ends as far as the network permits.
    fn exchange(&mut self) {
        while let Some(text) = self.session.poll_text() {
            if text.action == "policyState" {
                self.policy_states.push(text);
            } else {
                self.texts.push(text);
            }
        }
        let delay = match self.network {
            Network::Up(delay) => delay,
            Network::Stalled => Duration::from_secs(3600),
            Network::Down => return,
        };
        while let Some(message) = self.socket_takes.then(|| self.session.poll_message(now())).flatten() {
            let delay = if self.network == Network::Stalled { Duration::ZERO } else { delay };
            self.to_operator.push_back((now() + delay, message));
        }
        // the operator receives first, so that its next message carries the acknowledgement
        while self.operator_reads {
            let Some((_, message)) = self.to_operator.pop_front_if(|(at, _)| *at <= now()) else { break };
            self.take(&message);
            self.messages.push(message);
        }
        while let Some(message) = self.operator.poll_message(now()) {
            self.to_connector.push_back((now() + delay, message));
        }
        while let Some((_, message)) = self.to_connector.pop_front_if(|(at, _)| *at <= now()) {
            self.session.handle_message(now(), &message);
        }
    }

    fn take(&mut self, message: &Bytes) {
        let header = connector_agent::relay::wire::codec::Header::decode(message).unwrap();
        let incoming = match self.operator.handle_message(now(), message) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => return self.link_errors.push(error),
        };
        for record in incoming.records() {
            let got = match record.payload {
                Payload::Frame(frame) => Got::Frame(frame),
                Payload::Pdu { address, data, .. } => Got::Pdu { address, data: data.to_vec() },
                Payload::Event { code, detail, value, text } => {
                    if !text.is_empty() {
                        self.event_texts.push(text.to_owned());
                    }
                    Got::Event { code, detail, value }
                }
                Payload::Terminal15 { on } => Got::Terminal15(on),
                payload => panic!("{payload:?} must not be sent"),
            };
            let at = Duration::from_micros(header.time.saturating_add_signed(record.offset.into()));
            self.heard.push(Heard { channel: record.channel, at, got });
        }
    }
}

/// The policy of a connection whose test is about other things.
fn default_policy() -> SharedPolicy {
    SharedPolicy::without_questions()
}

/// The problem of an error message: its status, and the last part of its type.
pub fn problem(reply: &Envelope) -> (u64, String) {
    assert_eq!(reply.action, "error", "{reply:?}");
    let kind = reply.message["type"].as_str().unwrap();
    let slug = kind.strip_prefix("/problems/").unwrap();
    assert!(!reply.message["detail"].as_str().unwrap().is_empty(), "an error has a detail");
    (reply.message["status"].as_u64().unwrap(), slug.to_owned())
}
