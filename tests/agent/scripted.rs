//! The agent with a scripted cloud, which sends what the sandbox never sends.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use connector_agent::config::{ApiUrl, Config, WebsocketUrl};
use connector_hal::can::virtual_bus::VirtualBus;
use connector_test_support::agent::{AgentSettings, TestAgent, bus};
use connector_test_support::scripted_api::{Reply, Server};
use connector_test_support::soon;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

const CONNECTOR: &str = "5f3d760d-ade2-4a19-aea4-36e097678ae3";
const LOGIN: &str = "POST /v2/authenticate/pincode";
/// The end of the active ticket's address.
const ACTIVE_TICKET: &str = "/active-ticket";
/// The vendor's example of an active ticket.
const TICKET: &str = r#"{"id": "3", "uuid": "abcb2f39-7620-401a-8dab-ec2f6075ed8a", "vin": "JFL91010104591010",
    "vinNumber": "JFL91010104591010", "vehicle_model_id": 23423, "vehicle_model_variant_id": 23423,
    "product_ids": [[324234]], "chat_id": "2349283_416e4c77-4fc0-40ca-b5a5-95a12c4e84e8",
    "connector_id": 990001234, "state": 1}"#;

const ONE: &str = "97a00001-0000-4000-8000-000000000001";
const OTHER: &str = "97a00002-0000-4000-8000-000000000002";

/// An agent on a bus without other nodes, and a cloud that knows no ticket.
pub(super) struct Rig {
    api: Server,
    listener: TcpListener,
    pub(super) agent: TestAgent,
}

impl Rig {
    pub(super) async fn start() -> Self {
        Self::start_on(&bus(), AgentSettings::default(), |_| {}).await
    }

    /// An agent on this bus, with a changed configuration.
    pub(super) async fn start_on(
        bus: &VirtualBus,
        settings: AgentSettings,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let none = Reply::new(404, r#"{"type": "/problems/no-active-ticket", "status": 404}"#);
        Self::start_with_ticket(bus, settings, change, move || none.clone()).await
    }

    /// An agent on this bus, and a cloud whose active ticket is this answer.
    async fn start_with_ticket(
        bus: &VirtualBus,
        settings: AgentSettings,
        change: impl FnOnce(&mut Config),
        ticket: impl Fn() -> Reply + Send + Sync + 'static,
    ) -> Self {
        let api = Server::start(move |request, before| match request.line.as_str() {
            LOGIN => Reply::tokens(before + 1),
            line if line.ends_with(ACTIVE_TICKET) => ticket(),
            _ => Reply::new(404, "{}"),
        })
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::new(
            CONNECTOR.parse().unwrap(),
            ApiUrl::try_from(api.url.clone()).unwrap(),
            WebsocketUrl::try_from(format!("ws://{}/", listener.local_addr().unwrap())).unwrap(),
        );
        change(&mut config);
        let agent = TestAgent::start_with(config, "1234", bus, settings);
        Self { api, listener, agent }
    }

    /// Accepts the agent's next websocket; also returns the UUIDs of the connections that the agent holds.
    pub(super) async fn online(&self) -> (Websocket, Vec<Value>) {
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let callback = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            response.headers_mut().insert("sec-websocket-protocol", "connector-relay.v1".parse().unwrap());
            Ok(response)
        };
        let accepted = soon("the agent", async {
            let (tcp, _) = self.listener.accept().await.unwrap();
            tokio_tungstenite::accept_hdr_async(tcp, callback).await.unwrap()
        });
        let mut websocket = Websocket(accepted.await);
        let hello = websocket.hear().await;
        assert_eq!(hello["action"], "connectorHello", "{hello}");
        let features = hello["message"]["features"].as_array().unwrap();
        assert!(features.contains(&json!("clock")), "{hello}");
        let held = hello["message"]["connections"].as_array().unwrap();
        let uuids = held.iter().map(|connection| connection["connection_uuid"].clone()).collect();
        (websocket, uuids)
    }

    /// Waits until the agent has asked for the active ticket this many times.
    async fn asked_for_ticket(&self, times: usize) {
        let asked = async {
            let asked = || {
                let requests = self.api.requests();
                requests.iter().filter(|request| request.line.ends_with(ACTIVE_TICKET)).count()
            };
            while asked() < times {
                tokio::task::yield_now().await;
            }
        };
        soon("the question for the ticket", asked).await;
    }
}

/// The cloud's end of the agent's websocket.
pub(super) struct Websocket(WebSocketStream<TcpStream>);

impl Websocket {
    /// Sends a notice.
    pub(super) async fn say(&mut self, action: &str, message: Value) {
        self.send(Message::text(json!({"action": action, "message": message}).to_string())).await;
    }

    /// Passes on a binary message of the operator.
    pub(super) async fn relay(&mut self, message: Bytes) {
        self.send(Message::Binary(message)).await;
    }

    async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// Sends a request; returns the next text, which must be the answer.
    pub(super) async fn ask(&mut self, request_id: &str, action: &str, message: Value) -> Value {
        self.request(request_id, action, message).await;
        let answer = self.hear().await;
        assert_eq!(answer["request_id"], request_id, "{answer}");
        answer
    }

    /// Opens a connection.
    pub(super) async fn open(&mut self, request_id: &str, message: Value) {
        let opened = self.ask(request_id, "openConnection", message.clone()).await;
        assert_eq!(opened["action"], "connectionOpened", "{opened}");
        assert_eq!(opened["message"]["connection_uuid"], message["connection_uuid"]);
    }

    /// Sends a request, and waits for nothing.
    pub(super) async fn request(&mut self, request_id: &str, action: &str, message: Value) {
        let request = json!({"action": action, "message": message, "request_id": request_id});
        self.send(Message::text(request.to_string())).await;
    }

    /// The next message of the agent that has arrived.
    pub(super) fn arrived(&mut self) -> Option<Message> {
        Some(self.0.next().now_or_never()?.unwrap().unwrap())
    }

    /// Waits until the agent has closed the websocket.
    pub(super) async fn closed(&mut self) {
        soon("the end", async { while self.0.next().await.is_some_and(|message| message.is_ok()) {} }).await;
    }

    /// The next status of which this is so.
    pub(super) async fn status(&mut self, is_so: impl Fn(&Value) -> bool) -> Value {
        let next = async {
            loop {
                let Message::Text(text) = self.0.next().await.unwrap().unwrap() else { continue };
                let mut envelope: Value = serde_json::from_str(&text).unwrap();
                if envelope["action"] == "connectorStatusUpdate" && is_so(&envelope["message"]) {
                    return envelope["message"].take();
                }
            }
        };
        soon("a status", next).await
    }

    /// The next text that is not a status of the connector or of its policy.
    pub(super) async fn hear(&mut self) -> Value {
        let next = async {
            loop {
                let Message::Text(text) = self.0.next().await.unwrap().unwrap() else { continue };
                let envelope: Value = serde_json::from_str(&text).unwrap();
                let is_status =
                    ["connectorStatusUpdate", "policyState"].iter().any(|it| envelope["action"] == *it);
                if !is_status {
                    return envelope;
                }
            }
        };
        soon("a message", next).await
    }
}

#[tokio::test]
async fn a_repeated_open_connection_is_answered_again_and_opens_no_other() {
    let rig = Rig::start().await;
    let (mut websocket, held) = rig.online().await;
    assert!(held.is_empty(), "{held:?}");
    websocket.open("1", json!({"connection_uuid": ONE})).await;
    websocket.open("2", json!({"connection_uuid": ONE})).await;
    // the link is lost, perhaps with the answer
    drop(websocket);
    let (mut websocket, held) = rig.online().await;
    assert_eq!(held, [ONE]);
    websocket.open("3", json!({"connection_uuid": ONE})).await;
    let refused = websocket.ask("4", "openConnection", json!({"connection_uuid": OTHER})).await;
    assert_eq!(refused["message"]["type"], "/problems/connection-open", "{refused}");
    let closed = websocket.ask("5", "closeConnection", json!({"connection_uuid": ONE})).await;
    assert_eq!(closed["action"], "connectionClosed", "{closed}");
    let refused = websocket.ask("6", "closeConnection", json!({"connection_uuid": ONE})).await;
    assert_eq!(refused["message"]["type"], "/problems/unknown-connection", "there was only one: {refused}");
}

#[tokio::test]
async fn a_connection_with_numbered_messages_is_not_opened_again() {
    let rig = Rig::start().await;
    let (mut websocket, _) = rig.online().await;
    websocket.open("1", json!({"connection_uuid": ONE})).await;
    // an operator's first message: without records, but numbered
    let tag: uuid::Uuid = ONE.parse().unwrap();
    let mut message = vec![1, 0, 0, 0];
    message.extend_from_slice(&tag.as_bytes()[..4]);
    message.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    websocket.relay(message.into()).await;
    let refused = websocket.ask("2", "openConnection", json!({"connection_uuid": ONE})).await;
    assert_eq!(refused["message"]["type"], "/problems/connection-open", "{refused}");
    let closed = websocket.ask("3", "closeConnection", json!({"connection_uuid": ONE})).await;
    assert_eq!(closed["action"], "connectionClosed", "{closed}");
    websocket.open("4", json!({"connection_uuid": ONE})).await;
}

#[tokio::test]
async fn questions_for_the_active_ticket_do_not_pile_up_while_the_resource_fails() {
    // an hour: no question ends by itself
    let unavailable = || Reply::new(503, "").with("retry-after", "3600");
    let rig = Rig::start_with_ticket(&bus(), AgentSettings::default(), |_| {}, unavailable).await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let (mut websocket, _) = rig.online().await;
    rig.asked_for_ticket(1).await;
    let before = alive();
    for number in 2..=6 {
        // with a connection held, the agent reconnects within a second
        websocket.ask("1", "openConnection", json!({"connection_uuid": ONE})).await;
        drop(websocket);
        websocket = rig.online().await.0;
        rig.asked_for_ticket(number).await;
    }
    let settled = async {
        while alive() > before + 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("the end of the earlier questions", settled).await;
}

#[tokio::test]
async fn the_cloud_sets_the_interval_of_the_reports_for_its_link() {
    let rig = Rig::start().await;
    let (mut websocket, _) = rig.online().await;
    let set = websocket.ask("1", "setReporting", json!({"interval_seconds": 1})).await;
    assert_eq!((&set["action"], &set["message"]), (&json!("reportingSet"), &json!({"interval_seconds": 1})));
    for _ in 0..2 {
        websocket.status(|_| true).await;
    }
    for wrong in [json!(0), json!(3601), json!("soon")] {
        let refused = websocket.ask("2", "setReporting", json!({"interval_seconds": wrong})).await;
        assert_eq!(refused["message"]["in_reply_to"], "setReporting", "{refused}");
        assert_eq!(refused["message"]["status"], 400, "{refused}");
    }
}

#[tokio::test]
async fn the_status_names_the_open_connection_and_its_buses() {
    let rig = Rig::start().await;
    let (mut websocket, _) = rig.online().await;
    let idle = websocket.status(|_| true).await;
    assert_eq!((&idle["connection_uuid"], &idle["buses"]), (&Value::Null, &json!([])));
    websocket.open("1", json!({"connection_uuid": ONE})).await;
    let bus = json!({"bus_name": "HS", "can_bus": {"pin_plus": 6, "pin_min": 14, "can_protocol": "isotp",
        "can_bit_rate": 500_000}});
    websocket.ask("2", "configureBuses", json!({"connection_uuid": ONE, "buses": [bus]})).await;
    let status = websocket.status(|status| status["buses"] != json!([])).await;
    assert_eq!((&status["connection_uuid"], &status["connector_id"]), (&json!(ONE), &json!(CONNECTOR)));
    let bus = &status["buses"][0];
    assert_eq!((&bus["bus_name"], &bus["state"]), (&json!("HS"), &json!("active")));
    assert!(bus["load"].is_number(), "{status}");
}

#[tokio::test]
async fn a_connection_without_a_ticket_outlives_a_reconnect_and_one_with_a_ticket_ends() {
    let rig = Rig::start().await;
    let (mut websocket, _) = rig.online().await;
    websocket.open("1", json!({"connection_uuid": ONE})).await;
    for reconnects in 1..=3 {
        drop(websocket);
        let held;
        (websocket, held) = rig.online().await;
        assert_eq!(held, [ONE]);
        rig.asked_for_ticket(1 + reconnects).await;
    }
    let closed = websocket.ask("2", "closeConnection", json!({"connection_uuid": ONE})).await;
    assert_eq!(closed["action"], "connectionClosed", "it was still open: {closed}");

    websocket.open("3", json!({"connection_uuid": OTHER, "ticket_id": 7})).await;
    drop(websocket);
    let (mut websocket, held) = rig.online().await;
    assert_eq!(held, [OTHER]);
    let closed = websocket.hear().await;
    assert_eq!((&closed["action"], &closed["request_id"]), (&json!("connectionClosed"), &Value::Null));
    assert_eq!(closed["message"], json!({"connection_uuid": OTHER, "reason": "policy"}));
}

#[tokio::test]
async fn a_documented_ticket_keeps_its_connection_until_it_is_gone_or_another_one() {
    let ticket = Arc::new(Mutex::new(TICKET.to_owned()));
    let active = Arc::clone(&ticket);
    let answer = move || match active.lock().unwrap().as_str() {
        "" => Reply::new(404, r#"{"type": "/problems/no-active-ticket", "status": 404}"#),
        body => Reply::new(200, body),
    };
    let rig = Rig::start_with_ticket(&bus(), AgentSettings::default(), |_| {}, answer).await;
    let (mut websocket, _) = rig.online().await;
    websocket.open("1", json!({"connection_uuid": ONE, "ticket_id": 3})).await;
    // a state without a known meaning, an answer of another form and a field that tickets do not have end nothing
    let states = ["1", "\"pending\"", "7", "\"new\"", "null"]
        .map(|state| TICKET.replace("\"state\": 1", &format!("\"state\": {state}")));
    let same = TICKET.replace("\"state\": 1", &format!("\"connection_uuid\": \"{OTHER}\""));
    let others = ["{}", "[]", "null", r#"{"result": []}"#, "5", r#"{"uuid": "x"}"#, r#"{"state": 7}"#, &same];
    let others = others.map(str::to_owned);
    for (reconnects, body) in states.into_iter().chain(others).enumerate() {
        ticket.lock().unwrap().clone_from(&body);
        drop(websocket);
        let held;
        (websocket, held) = rig.online().await;
        assert_eq!(held, [ONE], "{body}");
        rig.asked_for_ticket(2 + reconnects).await;
    }
    // the answers are in the order of the questions
    let status = websocket.ask("2", "closeConnection", json!({"connection_uuid": ONE})).await;
    assert_eq!(status["action"], "connectionClosed", "it was still open: {status}");

    let ended = [
        TICKET.replace("\"id\": \"3\"", "\"id\": \"4\""),
        TICKET.replace("\"id\": \"3\"", &format!("\"id\": \"4\", \"connection_uuid\": \"{OTHER}\"")),
        TICKET.replace("\"state\": 1", "\"state\": \"CLOSED\""),
        String::new(),
    ];
    for (index, body) in ended.into_iter().enumerate() {
        websocket.open(&format!("{}", 3 + index), json!({"connection_uuid": OTHER, "ticket_id": 3})).await;
        ticket.lock().unwrap().clone_from(&body);
        drop(websocket);
        (websocket, _) = rig.online().await;
        let closed = websocket.hear().await;
        assert_eq!(closed["message"], json!({"connection_uuid": OTHER, "reason": "policy"}), "{body}");
    }
}
