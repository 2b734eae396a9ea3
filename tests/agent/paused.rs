//! The agent in virtual time, with a scripted cloud, an operator, and an ECU that answers each request positively.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::mpsc;
use std::time::Duration;

use connector_agent::config::Config;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{EventCode, Payload, PduFlags, Tag};
use connector_hal::board::{BoardConfig, InputConfig, Led, Source};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig, VirtualCan};
use connector_hal::can::{CanBus as _, CanEvent, CanFrame, CanId};
use connector_test_support::agent::AgentSettings;
use connector_test_support::{now, soon};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::scripted::{Rig, Websocket};

const STEP: Duration = Duration::from_millis(10);
/// How often agent and test take turns within a moment, so that messages pass the sockets in both directions.
const TURNS: usize = 12;
/// A request to change a data identifier, which is intrusive.
pub(super) const WRITE: [u8; 4] = [0x2E, 0xF1, 0x5A, 0x01];
/// The request for the programming session.
pub(super) const PROGRAMMING_SESSION: [u8; 2] = [0x10, 0x02];
const REQUEST: u32 = 0x7E0;
const RESPONSE: u32 = 0x7E8;

/// Keeps the runtime from passing time by itself when everything waits for a socket.
struct HeldClock(#[expect(dead_code, reason = "the end of this sender ends the thread")] mpsc::Sender<()>);

impl HeldClock {
    /// Time passes only by `tokio::time::advance` from now on.
    fn new() -> Self {
        let (sender, ended) = mpsc::channel::<()>();
        // while a blocking task runs, a paused runtime does not advance its clock by itself
        tokio::task::spawn_blocking(move || _ = ended.recv());
        Self(sender)
    }
}

/// An agent that is online. Time passes only by [`Paused::pass`].
pub(super) struct Paused {
    pub(super) rig: Rig,
    websocket: Websocket,
    texts: VecDeque<Value>,
    operator: Link,
    uuid: Uuid,
    /// The texts of the PDUs that the agent did not send.
    pub(super) refusals: Vec<String>,
    ecu: VirtualCan,
    /// The requests like [`WRITE`], and for the programming session, that the ECU has received.
    pub(super) writes: Vec<Vec<u8>>,
    /// The VIN that the ECU reports.
    pub(super) vin: Option<&'static str>,
    asked: usize,
    opened: u128,
    _clock: HeldClock,
}

impl Paused {
    /// An agent with this policy, on a device with or without a button.
    pub(super) async fn start(has_button: bool, policy: Value) -> Self {
        let clock = HeldClock::new();
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let ecu = bus.attach("ecu");
        let change = |config: &mut Config| {
            let source = Source::File("/dev/null".into());
            let button = InputConfig { source, active_low: false, debounce_ms: 0 };
            config.board = BoardConfig { button: has_button.then_some(button), ..BoardConfig::default() };
            config.policy = serde_json::from_value(policy).unwrap();
        };
        let settings = AgentSettings { runtime_time: true, ..AgentSettings::default() };
        let rig = Rig::start_on(&bus, settings, change).await;
        let (websocket, _) = rig.online().await;
        let uuid = Uuid::nil();
        Self {
            rig,
            websocket,
            texts: VecDeque::new(),
            operator: Link::new(Role::Operator, Tag::from(uuid), now()),
            uuid,
            refusals: Vec::new(),
            ecu,
            writes: Vec::new(),
            vin: None,
            asked: 0,
            opened: 0,
            _clock: clock,
        }
    }

    /// Opens the next connection, with a bus and a channel to the ECU. Returns the content of `connectionOpened`.
    pub(super) async fn open(&mut self) -> Value {
        self.open_for(None).await
    }

    /// Opens the next connection, meant for the vehicle with this VIN.
    pub(super) async fn open_for(&mut self, vin: Option<&str>) -> Value {
        let (opened, configured) = self.open_with_bus(vin).await;
        assert_eq!(configured["action"], "busesConfigured", "{configured}");
        let channel = self.open_channel(REQUEST).await;
        assert_eq!(channel["action"], "channelOpened", "{channel}");
        opened
    }

    /// Opens the next connection. Returns the content of `connectionOpened`, and the answer to `configureBuses`.
    pub(super) async fn open_with_bus(&mut self, vin: Option<&str>) -> (Value, Value) {
        self.opened += 1;
        self.uuid = Uuid::from_u128(0x97a0_0001_0000_4000_8000_0000_0000_0000 + self.opened);
        self.operator = Link::new(Role::Operator, Tag::from(self.uuid), now());
        let opened = self.ask("openConnection", json!({"vin": vin})).await;
        assert_eq!(opened["action"], "connectionOpened", "{opened}");
        let can_bus = json!({"pin_plus": 6, "pin_min": 14, "can_protocol": "isotp", "can_bit_rate": 500_000,
                             "verify": false});
        let buses = json!([{"bus_name": "HS", "can_bus": can_bus}]);
        let configured = self.ask("configureBuses", json!({"buses": buses})).await;
        (opened["message"].clone(), configured)
    }

    /// Asks for a channel to this ECU.
    pub(super) async fn open_channel(&mut self, request_id: u32) -> Value {
        let isotp = json!({"bus_name": "HS", "request_id": request_id, "response_id": request_id + 8});
        self.ask("openChannel", json!({"channel": request_id - REQUEST + 1, "isotp_channel": isotp})).await
    }

    /// Sends a request about the connection, and passes time until the agent answers it.
    pub(super) async fn ask(&mut self, action: &str, mut message: Value) -> Value {
        self.asked += 1;
        let request_id = self.asked.to_string();
        message["connection_uuid"] = json!(self.uuid);
        self.websocket.request(&request_id, action, message).await;
        self.hears(action, |text| text["request_id"] == request_id.as_str()).await
    }

    /// Sends [`WRITE`], and passes time until the ECU has it or the agent has refused it.
    pub(super) async fn send_write(&mut self) {
        self.send(&WRITE).await;
    }

    /// Sends a request, and passes time until it is one of [`Self::writes`], or the agent has refused it.
    pub(super) async fn send(&mut self, request: &[u8]) {
        let seen = self.writes.len() + self.refusals.len();
        let payload = Payload::Pdu { address: 0, flags: PduFlags::default(), data: request };
        self.operator.push(now(), now(), 1, payload).unwrap();
        // the agent may be asking the ECU for the VIN
        for _ in 0..1000 {
            if self.writes.len() + self.refusals.len() > seen {
                return;
            }
            self.pass(STEP).await;
        }
        panic!("neither sent nor refused");
    }

    /// The next text of which this is so. Texts before it are discarded. Time passes if none has arrived.
    pub(super) async fn hears(&mut self, description: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..1000 {
            if let Some(text) = self.heard(&is_so).await {
                return text;
            }
            self.pass(STEP).await;
        }
        panic!("{description}: not heard in 10 s");
    }

    /// The next text of which this is so, if the agent sends it without the passing of time.
    pub(super) async fn heard(&mut self, is_so: impl Fn(&Value) -> bool) -> Option<Value> {
        self.turns().await;
        let at = self.texts.iter().position(is_so)?;
        self.texts.drain(..=at).next_back()
    }

    /// The next state of the policy of which this is so, without the passing of time.
    pub(super) async fn state(&mut self, is_so: impl Fn(&Value) -> bool) -> Option<Value> {
        let state = self.heard(|text| text["action"] == "policyState" && is_so(&text["message"])).await;
        state.map(|mut state| state["message"].take())
    }

    pub(super) fn led(&self) -> Led {
        *self.rig.agent.board.led().borrow()
    }

    pub(super) fn sounds(&self) -> bool {
        *self.rig.agent.board.buzzer().borrow()
    }

    /// Presses the button for this time.
    pub(super) async fn press(&mut self, time: Duration) {
        self.rig.agent.board.set_button(Some(true));
        self.turns().await;
        self.pass(time).await;
        self.rig.agent.board.set_button(Some(false));
        self.turns().await;
    }

    /// Switches the ignition, and waits until that counts.
    pub(super) async fn switch_ignition(&mut self, on: bool) {
        self.rig.agent.board.set_ignition(Some(on));
        self.turns().await;
        self.pass(Duration::from_millis(100)).await;
    }

    /// Passes this time, in steps between which everything that is due happens.
    pub(super) async fn pass(&mut self, time: Duration) {
        let end = now() + time;
        while now() < end {
            tokio::time::advance(STEP.min(end - now())).await;
            self.turns().await;
        }
    }

    /// Lets agent, cloud and ECU take turns without the passing of time.
    pub(super) async fn turns(&mut self) {
        for _ in 0..TURNS {
            while let Some(message) = self.websocket.arrived() {
                match message {
                    Message::Text(text) => self.texts.push_back(serde_json::from_str(&text).unwrap()),
                    Message::Binary(bytes) => self.handle_binary(&bytes),
                    _ => {}
                }
            }
            while let Some(message) = self.operator.poll_message(now()) {
                soon("the websocket", self.websocket.relay(message)).await;
            }
            self.answer_as_ecu();
            tokio::task::yield_now().await;
        }
    }

    fn handle_binary(&mut self, bytes: &[u8]) {
        let Some(incoming) = self.operator.handle_message(now(), bytes).unwrap() else { return };
        for record in incoming.records() {
            if let Payload::Event { code: EventCode::SendFailed, text, .. } = record.payload {
                self.refusals.push(text.to_owned());
            }
        }
    }

    /// Answers the requests to the ECU positively, and sends the VIN if the ECU has one.
    fn answer_as_ecu(&mut self) {
        while let Some(event) = poll_fn(|cx| self.ecu.poll_event(cx)).now_or_never() {
            let CanEvent::Received { frame, .. } = event.unwrap() else { continue };
            if frame.id() != CanId::standard(REQUEST).unwrap() {
                continue;
            }
            let vin = self.vin.map(str::as_bytes);
            match (frame.data(), vin) {
                ([3, 0x22, 0xF1, 0x90, ..], Some(vin)) => {
                    self.send_as_ecu(&[&[0x10, 20, 0x62, 0xF1, 0x90], &vin[..3]].concat());
                }
                // flow control for the VIN
                ([0x30, ..], Some(vin)) => {
                    self.send_as_ecu(&[&[0x21], &vin[3..10]].concat());
                    self.send_as_ecu(&[&[0x22], &vin[10..]].concat());
                }
                // requestOutOfRange
                ([3, 0x22, ..], _) => self.send_as_ecu(&[3, 0x7F, 0x22, 0x31]),
                ([0x30, ..], _) => {}
                ([len, request @ ..], _) => {
                    let request = &request[..usize::from(*len)];
                    if request[0] == WRITE[0] || request == PROGRAMMING_SESSION {
                        self.writes.push(request.to_vec());
                    }
                    self.send_as_ecu(&[1, request[0] | 0x40]);
                }
                ([], _) => {}
            }
        }
    }

    fn send_as_ecu(&mut self, data: &[u8]) {
        let response = CanFrame::new(CanId::standard(RESPONSE).unwrap(), data).unwrap();
        poll_fn(|cx| self.ecu.poll_send(cx, &response)).now_or_never().unwrap().unwrap();
    }
}
