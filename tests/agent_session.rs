//! What agent, cloud, operator, vehicle and the person at the board see of each other, from end to end.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // the helpers, as the tests

mod agent_support;

use std::time::{Duration, Instant};

use agent_support::{
    AgentSettings, Bench, HANG, Sandbox, Socket, TestAgent, bus, catalogue, closed, configure, isotp, soon,
    vehicle,
};
use connector_agent::relay::wire::request::{IsotpChannelConfig, Switch};
use connector_hal::board::Led;
use connector_sim::network::{BadNetwork, BadNetworkConfig};
use connector_sim::operator::client::{Channel, CloseReason, Connection, LinkState, Timing};
use connector_sim::vehicle::ecu::{EcuStatus, Session};
use serde_json::{Value, json};
use tokio::sync::watch;

/// One vehicle, and another; each has an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";
const OTHER_VEHICLE: &str = "VOLKSWAGEN_ATLAS_MK1";
/// Below the interval of five seconds in which everything is told anyway, by what a busy machine may take.
const AT_ONCE: Duration = Duration::from_secs(4);

fn remote(reason: &str) -> CloseReason {
    CloseReason::Remote(reason.to_owned())
}

/// Asks the vehicle's first ECU what the file has it answer first.
async fn exchange(bench: &Bench, channel: &Channel) {
    let exchange = &bench.record.ecus[0].exchanges[0];
    let response = soon("the answer", channel.request(&exchange.request, &Timing::default())).await.unwrap();
    assert_eq!(response.data, exchange.response);
}

/// The first ECU, as seen from outside.
fn status(bench: &Bench) -> watch::Receiver<EcuStatus> {
    bench.vehicle.ecu(bench.ecu()).unwrap().status.clone()
}

fn requests_beside_tester_present(status: &watch::Receiver<EcuStatus>) -> u64 {
    let status = status.borrow();
    status.requests - status.tester_presents
}

async fn enters(status: &mut watch::Receiver<EcuStatus>, session: Session) {
    soon("the ECU's session", status.wait_for(|status| status.session == session)).await.unwrap();
}

/// Opens a channel that keeps the first ECU in its extended session.
async fn extended_session(bench: &Bench, connection: &Connection) -> Channel {
    let config = IsotpChannelConfig { keep_alive: Switch::Enabled, ..isotp(bench.ecu()) };
    let channel = soon("the channel", connection.open_isotp(config)).await.unwrap();
    soon("the session", channel.request(&[0x10, 0x03], &Timing::default())).await.unwrap();
    enters(&mut status(bench), Session::Extended).await;
    channel
}

/// A network between agent and cloud, and a connector online over it.
async fn behind_network(sandbox: Sandbox, bad: BadNetworkConfig) -> (Bench, BadNetwork) {
    let network = BadNetwork::start(sandbox.cloud.address, bad).await.unwrap();
    let settings = AgentSettings { through: Some(network.address()), ..AgentSettings::default() };
    (Bench::start_in(sandbox, VEHICLE, settings).await, network)
}

impl Bench {
    /// The connector is taken to another vehicle, and the ignition switched on there, until it tells its VIN.
    async fn swap(&mut self, platform: &str) {
        self.record = catalogue().find(platform).unwrap().clone();
        let other = vehicle(&self.record, &self.bus);
        std::mem::replace(&mut self.vehicle, other).stop().await;
        let vin = self.record.vin.unwrap();
        for _ in 0..3 {
            self.agent.board.set_ignition(Some(false));
            self.portal.sees("the ignition off", |update| update["ignition"] == false).await;
            self.agent.board.set_ignition(Some(true));
            // with more tests than cores, a simulated ECU may answer later than any real one
            let seen = self.portal.sees_vin(vin.as_str());
            if tokio::time::timeout(Duration::from_secs(10), seen).await.is_ok() {
                return;
            }
        }
        panic!("the VIN of {platform} was not read");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_for_another_vehicle_is_refused_and_served_once_the_connector_is_there() {
    let mut bench = Bench::start(VEHICLE).await;
    let vin = catalogue().find(OTHER_VEHICLE).unwrap().vin.unwrap().to_string();
    let ticket = bench.sandbox.ticket(&bench.connector, Some(&vin)).await;
    let operator = bench.sandbox.operator.clone();
    let refused = soon("the answer", operator.connect(ticket.connection().unwrap())).await.unwrap_err();
    let problem = refused.problem().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!((problem.status, problem.kind.as_str()), (409, "/problems/wrong-vehicle"));
    let tickets = operator.in_progress_tickets().await.unwrap();
    assert!(tickets.iter().any(|other| other.id == ticket.id), "{tickets:?}");

    bench.swap(OTHER_VEHICLE).await;
    bench.portal.sees_vin(&vin).await;
    let connection = bench.join(ticket.connection().unwrap()).await;
    assert_eq!(connection.joined().vin_number.as_deref(), Some(vin.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_joined_while_the_connector_was_away_is_served_once_the_vehicle_is_known() {
    let sandbox = Sandbox::start(1).await;
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vin = record.vin.map(|vin| vin.to_string());
    let ticket = sandbox.ticket(&sandbox.connectors[0], vin.as_deref()).await;
    let bench = Bench::start_in(sandbox, VEHICLE, AgentSettings::default()).await;
    let connection = bench.join(ticket.connection().unwrap()).await;
    assert_eq!(connection.joined().vin_number, vin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_while_it_waits_for_the_vin_does_not_stand_in_the_next_ones_way() {
    let sandbox = Sandbox::start(1).await;
    let (connector, bus) = (sandbox.connectors[0].clone(), bus());
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vin = record.vin.map(|vin| vin.to_string());
    let _vehicle = vehicle(&record, &bus);
    let (plug, adapter) = watch::channel(false);
    let settings = AgentSettings { adapter: Some(adapter), ..AgentSettings::default() };
    let _agent = TestAgent::start(&sandbox, &connector, &bus, settings);
    sandbox.portal(&connector).await.sees_online().await;
    let first = sandbox.ticket(&connector, vin.as_deref()).await;
    sandbox.operator.complete(&first.id).await.unwrap();
    let second = sandbox.ticket(&connector, vin.as_deref()).await;
    plug.send_replace(true);
    let connection = soon("the connection", sandbox.operator.connect(second.connection().unwrap())).await;
    assert_eq!(connection.unwrap().joined().vin_number, vin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_waits_for_the_vin_is_opened_also_if_the_link_is_lost_meanwhile() {
    let sandbox = Sandbox::start(1).await;
    let (connector, bus) = (sandbox.connectors[0].clone(), bus());
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vin = record.vin.map(|vin| vin.to_string());
    let _vehicle = vehicle(&record, &bus);
    let (plug, adapter) = watch::channel(false);
    let network = BadNetwork::start(sandbox.cloud.address, BadNetworkConfig::default()).await.unwrap();
    let settings = AgentSettings {
        through: Some(network.address()),
        adapter: Some(adapter),
        ..AgentSettings::default()
    };
    let agent = TestAgent::start(&sandbox, &connector, &bus, settings);
    let mut portal = sandbox.portal(&connector).await;
    portal.sees_online().await;
    let ticket = sandbox.ticket(&connector, vin.as_deref()).await;
    // what the cloud says goes by one link, in order: when the dismissal has arrived, the request to open has too
    agent.board.press_button();
    portal.sees("the call", |update| update["call_for_attention"] == true).await;
    sandbox.dismiss(&connector).await;
    agent.hears_buzzer(false).await;
    network.cut();
    portal.sees("the connector offline", |update| update["is_online"] == false).await;
    portal.sees_online().await;
    plug.send_replace(true);
    let connection = soon("the connection", sandbox.operator.connect(ticket.connection().unwrap())).await;
    assert_eq!(connection.unwrap().joined().vin_number, vin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_lost_before_the_operator_came_does_not_end_the_connection() {
    let sandbox = Sandbox::start_with(1, |config| config.hold = Duration::from_secs(2)).await;
    let (mut bench, network) = behind_network(sandbox, BadNetworkConfig::default()).await;
    let ticket = bench.sandbox.ticket(&bench.connector, bench.vin()).await;
    let uuid = ticket.connection().unwrap();
    let is_open = |update: &Value| update["connection_uuid"] == uuid.to_string().as_str();
    bench.portal.sees("the connection", is_open).await;
    network.cut();
    bench.portal.sees("the connector offline", |update| update["is_online"] == false).await;
    bench.portal.sees("the connection", is_open).await;
    let connection = bench.join(uuid).await;
    configure(&connection).await;
    let channel = extended_session(&bench, &connection).await;
    exchange(&bench, &channel).await;
    // for longer than a connection is held over a lost link
    let presents = status(&bench).borrow().tester_presents;
    let kept = |status: &EcuStatus| status.tester_presents >= presents + 2;
    soon("the ECU to be kept awake", status(&bench).wait_for(kept)).await.unwrap();
    exchange(&bench, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_opened_without_a_vin_ends_when_the_vehicle_turns_out_to_be_another() {
    let sandbox = Sandbox::start(1).await;
    // this one tells no VIN
    let mut bench = Bench::start_in(sandbox, "COMMA_BODY", AgentSettings::default()).await;
    assert_eq!(bench.sandbox.identify(&bench.connector).await["vin_number"], Value::Null);
    let vin = catalogue().find(VEHICLE).unwrap().vin.unwrap().to_string();
    let ticket = bench.sandbox.ticket(&bench.connector, Some(&vin)).await;
    let connection = bench.join(ticket.connection().unwrap()).await;
    bench.swap(VEHICLE).await;
    bench.portal.sees_vin(&vin).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
    bench.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_for_any_vehicle_is_bound_to_the_first_that_tells_its_vin() {
    let sandbox = Sandbox::start(1).await;
    let mut bench = Bench::start_in(sandbox, "COMMA_BODY", AgentSettings::default()).await;
    assert_eq!(bench.sandbox.identify(&bench.connector).await["vin_number"], Value::Null);
    let ticket = bench.sandbox.ticket(&bench.connector, None).await;
    let connection = bench.join(ticket.connection().unwrap()).await;
    bench.swap(VEHICLE).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
    bench.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_connection_ends_when_another_vehicle_is_there() {
    let mut bench = Bench::start(VEHICLE).await;
    let (_, connection, channel) = bench.session().await;
    exchange(&bench, &channel).await;
    bench.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
    let vin = bench.record.vin.unwrap().to_string();
    bench.portal.sees_vin(&vin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_buses_ends_too_when_another_vehicle_is_there() {
    let mut bench = Bench::start(VEHICLE).await;
    let (_, connection) = bench.connect().await;
    bench.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ignition_off_and_on_in_the_same_vehicle_disturbs_no_session() {
    let mut bench = Bench::start(VEHICLE).await;
    let (_, connection, channel) = bench.session().await;
    bench.swap(VEHICLE).await;
    bench.portal.sees("the ignition on", |update| update["ignition"] == true).await;
    // answered when the session has read the VIN
    soon("the VIN", connection.identify_vehicle()).await.unwrap();
    exchange(&bench, &channel).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_lost_for_longer_than_a_connection_is_held_ends_it_and_the_next_one_works() {
    let sandbox = Sandbox::start_with(1, |config| config.hold = Duration::from_secs(1)).await;
    let bad = BadNetworkConfig { pause_after_cut: Duration::from_secs(3), ..BadNetworkConfig::default() };
    let (bench, network) = behind_network(sandbox, bad).await;
    let (_, connection, channel) = bench.session().await;
    exchange(&bench, &channel).await;
    drop(channel);
    let _kept = extended_session(&bench, &connection).await;
    network.cut();
    assert_eq!(closed(&connection).await, remote("link-lost"));
    // nobody keeps it awake any more
    enters(&mut status(&bench), Session::Default).await;
    let again = bench.join(connection.uuid()).await;
    configure(&again).await;
    let channel = soon("the channel", again.open_isotp(isotp(bench.ecu()))).await.unwrap();
    exchange(&bench, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_a_lost_link_with_the_ecu_in_its_session() {
    let sandbox = Sandbox::start(1).await;
    let bad = BadNetworkConfig { pause_after_cut: Duration::from_secs(6), ..BadNetworkConfig::default() };
    let (bench, network) = behind_network(sandbox, bad).await;
    let (_, connection) = bench.connect().await;
    configure(&connection).await;
    let channel = extended_session(&bench, &connection).await;
    let anomalies = bench.vehicle.anomalies();
    let mut state = connection.state();
    network.cut();
    // for longer than S3: only the connector itself can have kept the ECU awake
    soon("the interruption", state.wait_for(|state| *state == LinkState::Down)).await.unwrap();
    soon("the link", state.wait_for(|state| *state == LinkState::Up)).await.unwrap();
    assert_eq!(status(&bench).borrow().session, Session::Extended);
    exchange(&bench, &channel).await;
    assert_eq!(bench.vehicle.anomalies(), anomalies);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completing_or_cancelling_a_ticket_closes_its_connection_and_the_next_ticket_is_served() {
    let mut bench = Bench::start(VEHICLE).await;
    for is_completed in [true, false] {
        let (ticket, connection, channel) = bench.session().await;
        let uuid = connection.uuid().to_string();
        bench.portal.sees("the connection", |update| update["connection_uuid"] == uuid.as_str()).await;
        exchange(&bench, &channel).await;
        let operator = &bench.sandbox.operator;
        match is_completed {
            true => operator.complete(&ticket).await.unwrap(),
            false => operator.cancel(&ticket, "no time").await.unwrap(),
        }
        assert_eq!(closed(&connection).await, remote("closed"));
        bench.portal.sees("no connection", |update| update["connection_uuid"].is_null()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_failure_of_the_connector_the_old_connection_ends_and_a_new_one_works() {
    let bench = Bench::start(VEHICLE).await;
    let (_, connection, channel) = bench.session().await;
    exchange(&bench, &channel).await;
    let Bench { sandbox, connector, bus, record, vehicle, agent, mut portal } = bench;
    agent.kill().await;
    portal.sees("the connector offline", |update| update["is_online"] == false).await;
    let mut state = connection.state();
    soon("the interruption", state.wait_for(|state| *state == LinkState::Down)).await.unwrap();
    let agent = TestAgent::start(&sandbox, &connector, &bus, AgentSettings::default());
    assert_eq!(closed(&connection).await, remote("link-lost"));
    let bench = Bench { sandbox, connector, bus, record, vehicle, agent, portal };
    let again = bench.join(connection.uuid()).await;
    configure(&again).await;
    let channel = soon("the channel", again.open_isotp(isotp(bench.ecu()))).await.unwrap();
    exchange(&bench, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_the_agent_brings_the_ecu_back_to_its_default_session_and_says_goodbye() {
    let bench = Bench::start(VEHICLE).await;
    let (_, connection) = bench.connect().await;
    configure(&connection).await;
    let _channel = extended_session(&bench, &connection).await;
    let mut ecu = status(&bench);
    let before = requests_beside_tester_present(&ecu);
    let board = bench.agent.board.clone();
    let took = bench.agent.shut_down().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(*board.led().borrow(), Led::Off);
    assert_eq!(closed(&connection).await, remote("shutdown"));
    enters(&mut ecu, Session::Default).await;
    assert_eq!(requests_beside_tester_present(&ecu), before + 1, "not by S3, but by the agent");
    let mut portal = bench.portal;
    portal.sees("the connector offline", |update| update["is_online"] == false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_on_a_stalled_link_the_agent_is_as_quick_and_as_kind_to_the_ecu() {
    let (bench, network) = behind_network(Sandbox::start(1).await, BadNetworkConfig::default()).await;
    let (_, connection) = bench.connect().await;
    configure(&connection).await;
    let _channel = extended_session(&bench, &connection).await;
    let mut ecu = status(&bench);
    let before = requests_beside_tester_present(&ecu);
    network.stall(HANG);
    let took = bench.agent.shut_down().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    enters(&mut ecu, Session::Default).await;
    assert_eq!(requests_beside_tester_present(&ecu), before + 1, "not by S3, but by the agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_does_not_reach_the_cloud_shows_it_and_ends_as_quickly() {
    let sandbox = Sandbox::start(1).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = AgentSettings { through: Some(nobody), ..AgentSettings::default() };
    let agent = TestAgent::start(&sandbox, &sandbox.connectors[0], &bus(), settings);
    let (on, off) = (Duration::from_millis(100), Duration::from_millis(1900));
    agent.sees_led("that nobody is reached", |led| led == Led::Blink { on, off }).await;
    let took = agent.shut_down().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pincode_is_shown_by_the_led_and_tried_only_once() {
    let sandbox = Sandbox::start(2).await;
    let bus = bus();
    let connector = &sandbox.connectors[1];
    let wrong = AgentSettings { pincode: Some("000000".to_owned()), ..AgentSettings::default() };
    let agent = TestAgent::start(&sandbox, connector, &bus, wrong);
    let blink = Duration::from_millis(100);
    agent.sees_led("the LED of a rejected login", |led| led == Led::Blink { on: blink, off: blink }).await;
    assert_eq!(sandbox.cloud.pincode_logins(), 1);
    // while another one logs in, comes online and tells its VIN, nothing more is tried
    let bench = Bench::start_in(sandbox, VEHICLE, AgentSettings::default()).await;
    assert_eq!(bench.sandbox.cloud.pincode_logins(), 2);
    assert_eq!(bench.sandbox.record(&bench.sandbox.connectors[1]).await["is_online"], false);
    assert!(agent.shut_down().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_button_calls_for_attention_until_somebody_dismisses_it() {
    let mut bench = Bench::start(VEHICLE).await;
    bench.agent.sees_led("online", |led| led == Led::On).await;
    for by_portal in [true, false] {
        bench.agent.board.press_button();
        bench.portal.sees("the call", |update| update["call_for_attention"] == true).await;
        bench.agent.hears_buzzer(true).await;
        bench.agent.sees_led("the call", |led| led != Led::On).await;
        if by_portal {
            bench.sandbox.dismiss(&bench.connector).await;
        } else {
            bench.agent.board.press_button();
        }
        bench.agent.hears_buzzer(false).await;
        bench.agent.sees_led("no call", |led| led == Led::On).await;
        bench.portal.sees("no call", |update| update["call_for_attention"] == false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_attention_while_the_link_is_lost_is_made_when_it_is_back() {
    let bad = BadNetworkConfig { pause_after_cut: Duration::from_secs(1), ..BadNetworkConfig::default() };
    let (mut bench, network) = behind_network(Sandbox::start(1).await, bad).await;
    network.cut();
    bench.portal.sees("the connector offline", |update| update["is_online"] == false).await;
    bench.agent.sees_led("offline", |led| led != Led::On).await;
    bench.agent.board.press_button();
    bench.agent.hears_buzzer(true).await;
    bench.portal.sees("the call", |update| update["call_for_attention"] == true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vehicle_is_identified_on_request_with_and_without_a_session() {
    let bench = Bench::start(VEHICLE).await;
    let (address, _) = bench.record.vin_exchanges[0];
    // here and below, until the simulated ECU is as quick as a real one
    let mut identified = bench.sandbox.identify(&bench.connector).await;
    while identified["vin_number"].is_null() {
        identified = bench.sandbox.identify(&bench.connector).await;
    }
    assert_eq!(identified["vin_number"].as_str(), bench.vin());
    assert_eq!(identified["source"], "uds");
    assert_eq!(identified["address"], address.response.to_string());
    assert!(identified["elapsed_ms"].is_u64(), "{identified}");

    let (_, connection, channel) = bench.session().await;
    let identify = async {
        loop {
            let identified = soon("the VIN", connection.identify_vehicle()).await.unwrap();
            if identified.vin_number.is_some() {
                return identified;
            }
        }
    };
    let (identified, ()) = tokio::join!(identify, exchange(&bench, &channel));
    assert_eq!(identified.vin_number.as_deref(), bench.vin());
    assert_eq!(identified.source.as_deref(), Some("uds"));
    exchange(&bench, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_reported_at_once() {
    let mut bench = Bench::start(VEHICLE).await;
    bench.agent.board.set_voltage(Some(11.5));
    // from one update the next would be five seconds away
    bench.portal.sees("the voltage", |update| update["voltage"] == 11.5).await;
    for on in [false, true] {
        let changed = Instant::now();
        bench.agent.board.set_ignition(Some(on));
        let update = bench.portal.sees("the ignition", |update| update["ignition"] == on).await;
        assert!(changed.elapsed() < AT_ONCE, "{:?}", changed.elapsed());
        assert_eq!(update["voltage"], 11.5);
    }
    let changed = Instant::now();
    let (_, connection) = bench.connect().await;
    let uuid = connection.uuid().to_string();
    bench.portal.sees("the connection", |update| update["connection_uuid"] == uuid.as_str()).await;
    assert!(changed.elapsed() < AT_ONCE, "{:?}", changed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_gets_at_a_joined_ticket() {
    let bench = Bench::start(VEHICLE).await;
    let (ticket, connection, channel) = bench.session().await;
    let sandbox = &bench.sandbox;
    let refused = sandbox.operator.join(&ticket, "desk 2").await.unwrap_err();
    assert_eq!(refused.problem().map(|problem| problem.status), Some(409), "{refused}");

    let mut stranger = Socket::open(sandbox, &sandbox.customer_token().await).await;
    stranger.say("joinConnection", json!({"connection_uuid": connection.uuid()})).await;
    let answer = soon("the answer", stranger.hear()).await;
    assert_eq!((&answer["action"], &answer["message"]["status"]), (&json!("error"), &json!(403)), "{answer}");

    let second = sandbox.pending(&bench.connector, bench.vin()).await;
    let refused = sandbox.operator.join(&second, "desk 2").await.unwrap_err();
    let problem = refused.problem().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!((problem.status, problem.kind.as_str()), (409, "/problems/connector-busy"));
    exchange(&bench, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expired_in_the_middle_of_a_connection_costs_one_login_and_nothing_else() {
    let (bench, network) = behind_network(Sandbox::start(1).await, BadNetworkConfig::default()).await;
    let (_, connection, channel) = bench.session().await;
    exchange(&bench, &channel).await;
    let sandbox = &bench.sandbox;
    let before = sandbox.cloud.pincode_logins();
    sandbox.cloud.expire_tokens();

    let mut state = connection.state();
    network.cut();
    soon("the interruption", state.wait_for(|state| *state == LinkState::Down)).await.unwrap();
    soon("the link", state.wait_for(|state| *state == LinkState::Up)).await.unwrap();
    exchange(&bench, &channel).await;
    assert_eq!(sandbox.cloud.pincode_logins(), before + 1);
}
