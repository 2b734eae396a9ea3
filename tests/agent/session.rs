//! End-to-end tests of a session with agent, cloud, operator, vehicle and board.

use std::time::{Duration, Instant};

use connector_agent::relay::wire::request::{IsotpChannelConfig, Switch};
use connector_hal::board::Led;
use connector_operator::client::{Channel, CloseReason, Connection, LinkState, Timing};
use connector_operator::flash::{Firmware, flash};
use connector_sim::network::{BadNetwork, BadNetworkConfig};
use connector_sim::vehicle::ecu::{EcuStatus, Session};
use connector_test_support::agent::{AgentSettings, Rig, Sandbox, Socket, TestAgent, bus, closed, vehicle};
use connector_test_support::config::{configure, isotp};
use connector_test_support::data::catalogue;
use connector_test_support::{HANG, soon};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Two vehicles. Each has an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";
const OTHER_VEHICLE: &str = "VOLKSWAGEN_ATLAS_MK1";
/// Shorter than the five seconds between regular status updates, and long enough for a busy machine.
const IMMEDIATELY: Duration = Duration::from_secs(4);

fn remote(reason: &str) -> CloseReason {
    CloseReason::Remote(reason.to_owned())
}

/// Makes the first exchange of the file with the vehicle's first ECU.
async fn exchange(rig: &Rig, channel: &Channel) {
    let exchange = &rig.record.ecus[0].exchanges[0];
    let response = soon("the answer", channel.request(&exchange.request, &Timing::default())).await.unwrap();
    assert_eq!(response.data, exchange.response);
}

/// The status of the simulated first ECU.
fn status(rig: &Rig) -> watch::Receiver<EcuStatus> {
    rig.vehicle.ecu(rig.ecu()).unwrap().status.clone()
}

fn requests_beside_tester_present(status: &watch::Receiver<EcuStatus>) -> u64 {
    let status = status.borrow();
    status.requests - status.tester_presents
}

async fn enters(status: &mut watch::Receiver<EcuStatus>, session: Session) {
    soon("the ECU's session", status.wait_for(|status| status.session == session)).await.unwrap();
}

/// Opens a channel that keeps the first ECU in its extended session.
async fn extended_session(rig: &Rig, connection: &Connection) -> Channel {
    let config = IsotpChannelConfig { keep_alive: Switch::Enabled, ..isotp(rig.ecu()) };
    let channel = soon("the channel", connection.open_isotp(config)).await.unwrap();
    soon("the session", channel.request(&[0x10, 0x03], &Timing::default())).await.unwrap();
    enters(&mut status(rig), Session::Extended).await;
    channel
}

/// A network between agent and cloud, and an online connector behind it.
async fn behind_network(sandbox: Sandbox, bad: BadNetworkConfig) -> (Rig, BadNetwork) {
    let network = BadNetwork::start(sandbox.cloud.address, bad).await.unwrap();
    let settings = AgentSettings { through: Some(network.address()), ..AgentSettings::default() };
    (Rig::start_in(sandbox, VEHICLE, settings).await, network)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_refused_until_the_connector_is_in_its_vehicle() {
    let mut rig = Rig::start(VEHICLE).await;
    let vin = catalogue().find(OTHER_VEHICLE).unwrap().vin.unwrap().to_string();
    let ticket = rig.sandbox.ticket(&rig.connector, Some(&vin)).await;
    let operator = rig.sandbox.operator.clone();
    let refused = soon("the answer", operator.connect(ticket.connection().unwrap())).await.unwrap_err();
    let problem = refused.problem().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!((problem.status, problem.kind.as_str()), (409, "/problems/wrong-vehicle"));
    let tickets = operator.in_progress_tickets().await.unwrap();
    assert!(tickets.iter().any(|other| other.id == ticket.id), "{tickets:?}");

    rig.swap(OTHER_VEHICLE).await;
    rig.portal.sees_vin(&vin).await;
    let connection = rig.join(ticket.connection().unwrap()).await;
    assert_eq!(connection.joined().vin_number.as_deref(), Some(vin.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_joined_while_the_connector_was_away_is_served_once_the_vehicle_is_known() {
    let sandbox = Sandbox::start(1).await;
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vin = record.vin.map(|vin| vin.to_string());
    let ticket = sandbox.ticket(&sandbox.connectors[0], vin.as_deref()).await;
    let rig = Rig::start_in(sandbox, VEHICLE, AgentSettings::default()).await;
    let connection = rig.join(ticket.connection().unwrap()).await;
    assert_eq!(connection.joined().vin_number, vin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_closed_while_it_waits_for_the_vin_does_not_block_the_next() {
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
async fn a_connection_that_waits_for_the_vin_opens_despite_a_lost_link() {
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
    // the cloud's messages arrive in order on one link, so that the request to open has arrived when the
    // dismissal arrives
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
    let (mut rig, network) = behind_network(sandbox, BadNetworkConfig::default()).await;
    let ticket = rig.sandbox.ticket(&rig.connector, rig.vin()).await;
    let uuid = ticket.connection().unwrap();
    let is_open = |update: &Value| update["connection_uuid"] == uuid.to_string().as_str();
    rig.portal.sees("the connection", is_open).await;
    network.cut();
    rig.portal.sees("the connector offline", |update| update["is_online"] == false).await;
    rig.portal.sees("the connection", is_open).await;
    let connection = rig.join(uuid).await;
    configure(&connection).await;
    let channel = extended_session(&rig, &connection).await;
    exchange(&rig, &channel).await;
    // longer than the hold time of a connection without a link
    let presents = status(&rig).borrow().tester_presents;
    let kept = |status: &EcuStatus| status.tester_presents >= presents + 2;
    soon("the ECU to be kept awake", status(&rig).wait_for(kept)).await.unwrap();
    exchange(&rig, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_opened_without_a_vin_ends_when_the_vehicle_turns_out_to_be_another() {
    let sandbox = Sandbox::start(1).await;
    // no VIN can be read from this vehicle
    let mut rig = Rig::start_in(sandbox, "COMMA_BODY", AgentSettings::default()).await;
    assert_eq!(rig.sandbox.identify(&rig.connector).await["vin_number"], Value::Null);
    let vin = catalogue().find(VEHICLE).unwrap().vin.unwrap().to_string();
    let ticket = rig.sandbox.ticket(&rig.connector, Some(&vin)).await;
    let connection = rig.join(ticket.connection().unwrap()).await;
    rig.swap(VEHICLE).await;
    rig.portal.sees_vin(&vin).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
    rig.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_for_any_vehicle_is_bound_to_the_first_vin_read() {
    let sandbox = Sandbox::start(1).await;
    let mut rig = Rig::start_in(sandbox, "COMMA_BODY", AgentSettings::default()).await;
    assert_eq!(rig.sandbox.identify(&rig.connector).await["vin_number"], Value::Null);
    let ticket = rig.sandbox.ticket(&rig.connector, None).await;
    let connection = rig.join(ticket.connection().unwrap()).await;
    rig.swap(VEHICLE).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
    rig.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_connection_ends_in_another_vehicle() {
    let mut rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    exchange(&rig, &channel).await;
    rig.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
    let vin = rig.record.vin.unwrap().to_string();
    rig.portal.sees_vin(&vin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_programming_session_begins_only_in_the_vehicle_of_the_ticket() {
    let sandbox = Sandbox::start(1).await;
    let (connector, bus) = (sandbox.connectors[0].clone(), bus());
    // no ECU is asked at the start, so that the VIN is unknown when the connection is opened
    let settings = AgentSettings { ignition_off: true, ..AgentSettings::default() };
    let _agent = TestAgent::start(&sandbox, &connector, &bus, settings);
    sandbox.portal(&connector).await.sees_online().await;
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vin = record.vin.map(|vin| vin.to_string());
    let ticket = sandbox.ticket(&connector, vin.as_deref()).await;
    let connection = sandbox.operator.connect(ticket.connection().unwrap());
    let connection = soon("the connection", connection).await.unwrap();
    assert_eq!(connection.joined().vin_number, None);
    let vehicle = vehicle(&record, &bus);
    let address = record.ecus[0].address;
    configure(&connection).await;
    let channel = soon("the channel", connection.open_isotp(isotp(address))).await.unwrap();
    // refused, unless this machine is so slow that the VIN was read before
    if let Err(error) = soon("the answer", channel.request(&[0x10, 0x02], &Timing::default())).await {
        assert!(error.to_string().contains("has not confirmed the VIN"), "{error}");
    }
    // the flash repeats the request until the VIN is confirmed
    let firmware = Firmware { address: 0x0800_0000, data: &[0xA5; 5000] };
    let report = soon("the flash", flash(&channel, firmware, &Timing::default(), &mut |_| {})).await.unwrap();
    assert_eq!(report.bytes, 5000);
    vehicle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_was_plugged_into_another_vehicle_ends_the_connection() {
    let mut rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    exchange(&rig, &channel).await;
    rig.record = catalogue().find(OTHER_VEHICLE).unwrap().clone();
    rig.bus.unplug("can0");
    let other = vehicle(&rig.record, &rig.bus);
    std::mem::replace(&mut rig.vehicle, other).stop().await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adapter_that_was_plugged_into_the_same_vehicle_again_disturbs_no_session() {
    let rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    exchange(&rig, &channel).await;
    rig.bus.unplug("can0");
    // no VIN while the adapter is gone
    while soon("the VIN", connection.identify_vehicle()).await.unwrap().vin_number.is_some() {}
    while soon("the VIN", connection.identify_vehicle()).await.unwrap().vin_number.as_deref() != rig.vin() {}
    exchange(&rig, &channel).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_a_vin_that_can_no_longer_be_read() {
    for has_buses in [true, false] {
        let mut rig = Rig::start(VEHICLE).await;
        let (_, connection) = rig.connect().await;
        if has_buses {
            configure(&connection).await;
        }
        // in this vehicle no VIN can be read
        rig.enter("COMMA_BODY").await;
        // answered after a reading, and so after everything that it caused
        while soon("the VIN", connection.identify_vehicle()).await.unwrap().vin_number.is_some() {}
        assert_eq!(*connection.state().borrow(), LinkState::Up);
        rig.swap(VEHICLE).await;
        assert_eq!(*connection.state().borrow(), LinkState::Up);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_buses_ends_in_another_vehicle_too() {
    let mut rig = Rig::start(VEHICLE).await;
    let (_, connection) = rig.connect().await;
    rig.swap(OTHER_VEHICLE).await;
    assert_eq!(closed(&connection).await, remote("vehicle-lost"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ignition_off_and_on_in_the_same_vehicle_disturbs_no_session() {
    let mut rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    rig.swap(VEHICLE).await;
    rig.portal.sees("the ignition on", |update| update["ignition"] == true).await;
    // the answer comes when the session has read the VIN
    soon("the VIN", connection.identify_vehicle()).await.unwrap();
    exchange(&rig, &channel).await;
    assert_eq!(*connection.state().borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_lost_for_longer_than_a_connection_is_held_ends_it_and_the_next_one_works() {
    let sandbox = Sandbox::start_with(1, |config| config.hold = Duration::from_secs(1)).await;
    let bad = BadNetworkConfig { pause_after_cut: Duration::from_secs(3), ..BadNetworkConfig::default() };
    let (rig, network) = behind_network(sandbox, bad).await;
    let (_, connection, channel) = rig.session().await;
    exchange(&rig, &channel).await;
    drop(channel);
    let _kept = extended_session(&rig, &connection).await;
    network.cut();
    assert_eq!(closed(&connection).await, remote("link-lost"));
    // the connector no longer keeps the ECU's session active
    enters(&mut status(&rig), Session::Default).await;
    let again = rig.join(connection.uuid()).await;
    configure(&again).await;
    let channel = soon("the channel", again.open_isotp(isotp(rig.ecu()))).await.unwrap();
    exchange(&rig, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_a_lost_link_with_the_ecu_in_its_session() {
    let sandbox = Sandbox::start(1).await;
    let bad = BadNetworkConfig { pause_after_cut: Duration::from_secs(6), ..BadNetworkConfig::default() };
    let (rig, network) = behind_network(sandbox, bad).await;
    let (_, connection) = rig.connect().await;
    configure(&connection).await;
    let channel = extended_session(&rig, &connection).await;
    let anomalies = rig.vehicle.anomalies();
    let mut state = connection.state();
    network.cut();
    // longer than S3: only the connector can have kept the ECU's session
    soon("the interruption", state.wait_for(|state| *state == LinkState::Down)).await.unwrap();
    soon("the link", state.wait_for(|state| *state == LinkState::Up)).await.unwrap();
    assert_eq!(status(&rig).borrow().session, Session::Extended);
    exchange(&rig, &channel).await;
    assert_eq!(rig.vehicle.anomalies(), anomalies);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completed_or_cancelled_ticket_closes_its_connection() {
    let mut rig = Rig::start(VEHICLE).await;
    for is_completed in [true, false] {
        let (ticket, connection, channel) = rig.session().await;
        let uuid = connection.uuid().to_string();
        rig.portal.sees("the connection", |update| update["connection_uuid"] == uuid.as_str()).await;
        exchange(&rig, &channel).await;
        let operator = &rig.sandbox.operator;
        match is_completed {
            true => operator.complete(&ticket).await.unwrap(),
            false => operator.cancel(&ticket, "no time").await.unwrap(),
        }
        assert_eq!(closed(&connection).await, remote("closed"));
        rig.portal.sees("no connection", |update| update["connection_uuid"].is_null()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_failure_the_old_connection_ends_and_a_new_one_works() {
    let rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    exchange(&rig, &channel).await;
    let Rig { sandbox, connector, bus, record, vehicle, agent, mut portal } = rig;
    agent.kill().await;
    portal.sees("the connector offline", |update| update["is_online"] == false).await;
    let mut state = connection.state();
    soon("the interruption", state.wait_for(|state| *state == LinkState::Down)).await.unwrap();
    let agent = TestAgent::start(&sandbox, &connector, &bus, AgentSettings::default());
    assert_eq!(closed(&connection).await, remote("link-lost"));
    let rig = Rig { sandbox, connector, bus, record, vehicle, agent, portal };
    let again = rig.join(connection.uuid()).await;
    configure(&again).await;
    let channel = soon("the channel", again.open_isotp(isotp(rig.ecu()))).await.unwrap();
    exchange(&rig, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_returns_the_ecu_to_its_default_session_and_closes_the_link() {
    let rig = Rig::start(VEHICLE).await;
    let (_, connection) = rig.connect().await;
    configure(&connection).await;
    let _channel = extended_session(&rig, &connection).await;
    let mut ecu = status(&rig);
    let before = requests_beside_tester_present(&ecu);
    let board = rig.agent.board.clone();
    let took = rig.agent.shut_down().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(*board.led().borrow(), Led::Off);
    assert_eq!(closed(&connection).await, remote("shutdown"));
    enters(&mut ecu, Session::Default).await;
    assert_eq!(requests_beside_tester_present(&ecu), before + 1, "the agent ended the session, not S3");
    let mut portal = rig.portal;
    portal.sees("the connector offline", |update| update["is_online"] == false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_on_a_stalled_link_returns_the_ecu_to_its_default_session() {
    let (rig, network) = behind_network(Sandbox::start(1).await, BadNetworkConfig::default()).await;
    let (_, connection) = rig.connect().await;
    configure(&connection).await;
    let _channel = extended_session(&rig, &connection).await;
    let mut ecu = status(&rig);
    let before = requests_beside_tester_present(&ecu);
    network.stall(HANG);
    let took = rig.agent.shut_down().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    enters(&mut ecu, Session::Default).await;
    assert_eq!(requests_beside_tester_present(&ecu), before + 1, "the agent ended the session, not S3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_the_cloud_shows_it_by_the_led_and_ends_quickly() {
    let sandbox = Sandbox::start(1).await;
    let unused_address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let settings = AgentSettings { through: Some(unused_address), ..AgentSettings::default() };
    let agent = TestAgent::start(&sandbox, &sandbox.connectors[0], &bus(), settings);
    let (on, off) = (Duration::from_millis(100), Duration::from_millis(1900));
    agent.sees_led("the LED of an unreachable cloud", |led| led == Led::Blink { on, off }).await;
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
    // no further attempt is made while another agent logs in, comes online and reports its VIN
    let rig = Rig::start_in(sandbox, VEHICLE, AgentSettings::default()).await;
    assert_eq!(rig.sandbox.cloud.pincode_logins(), 2);
    assert_eq!(rig.sandbox.record(&rig.sandbox.connectors[1]).await["is_online"], false);
    assert!(agent.shut_down().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_button_calls_for_attention_until_an_operator_dismisses_the_call() {
    let mut rig = Rig::start(VEHICLE).await;
    rig.agent.sees_led("online", |led| led == Led::On).await;
    for by_portal in [true, false] {
        rig.agent.board.press_button();
        rig.portal.sees("the call", |update| update["call_for_attention"] == true).await;
        rig.agent.hears_buzzer(true).await;
        rig.agent.sees_led("the call", |led| led != Led::On).await;
        if by_portal {
            rig.sandbox.dismiss(&rig.connector).await;
        } else {
            rig.agent.board.press_button();
        }
        rig.agent.hears_buzzer(false).await;
        rig.agent.sees_led("no call", |led| led == Led::On).await;
        rig.portal.sees("no call", |update| update["call_for_attention"] == false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_attention_without_a_link_is_sent_when_the_link_is_back() {
    let bad = BadNetworkConfig { pause_after_cut: Duration::from_secs(1), ..BadNetworkConfig::default() };
    let (mut rig, network) = behind_network(Sandbox::start(1).await, bad).await;
    network.cut();
    rig.portal.sees("the connector offline", |update| update["is_online"] == false).await;
    rig.agent.sees_led("offline", |led| led != Led::On).await;
    rig.agent.board.press_button();
    rig.agent.hears_buzzer(true).await;
    rig.portal.sees("the call", |update| update["call_for_attention"] == true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_vehicle_is_identified_on_request_with_and_without_a_session() {
    let rig = Rig::start(VEHICLE).await;
    let (address, _) = rig.record.vin_exchanges[0];
    // here and below, the test repeats the request until the simulated ECU answers as fast as a real one
    let mut identified = rig.sandbox.identify(&rig.connector).await;
    while identified["vin_number"].is_null() {
        identified = rig.sandbox.identify(&rig.connector).await;
    }
    assert_eq!(identified["vin_number"].as_str(), rig.vin());
    assert_eq!(identified["source"], "uds");
    assert_eq!(identified["address"], address.response.to_string());
    assert!(identified["elapsed_ms"].is_u64(), "{identified}");

    let (_, connection, channel) = rig.session().await;
    let identify = async {
        loop {
            let identified = soon("the VIN", connection.identify_vehicle()).await.unwrap();
            if identified.vin_number.is_some() {
                return identified;
            }
        }
    };
    let (identified, ()) = tokio::join!(identify, exchange(&rig, &channel));
    assert_eq!(identified.vin_number.as_deref(), rig.vin());
    assert_eq!(identified.source.as_deref(), Some("uds"));
    exchange(&rig, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_changes_are_reported_immediately() {
    let mut rig = Rig::start(VEHICLE).await;
    rig.agent.board.set_voltage(Some(11.5));
    // after this update, the next regular one is five seconds away
    rig.portal.sees("the voltage", |update| update["voltage"] == 11.5).await;
    for on in [false, true] {
        let changed = Instant::now();
        rig.agent.board.set_ignition(Some(on));
        let update = rig.portal.sees("the ignition", |update| update["ignition"] == on).await;
        assert!(changed.elapsed() < IMMEDIATELY, "{:?}", changed.elapsed());
        assert_eq!(update["voltage"], 11.5);
    }
    let changed = Instant::now();
    let (_, connection) = rig.connect().await;
    let uuid = connection.uuid().to_string();
    rig.portal.sees("the connection", |update| update["connection_uuid"] == uuid.as_str()).await;
    assert!(changed.elapsed() < IMMEDIATELY, "{:?}", changed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_client_can_use_a_joined_ticket() {
    let rig = Rig::start(VEHICLE).await;
    let (ticket, connection, channel) = rig.session().await;
    let sandbox = &rig.sandbox;
    let refused = sandbox.operator.join(&ticket, "desk 2").await.unwrap_err();
    assert_eq!(refused.problem().map(|problem| problem.status), Some(409), "{refused}");

    let mut stranger = Socket::open(sandbox, &sandbox.customer_token().await).await;
    stranger.say("joinConnection", json!({"connection_uuid": connection.uuid()})).await;
    let answer = soon("the answer", stranger.hear()).await;
    assert_eq!((&answer["action"], &answer["message"]["status"]), (&json!("error"), &json!(403)), "{answer}");

    let second = sandbox.pending(&rig.connector, rig.vin()).await;
    let refused = sandbox.operator.join(&second, "desk 2").await.unwrap_err();
    let problem = refused.problem().unwrap_or_else(|| panic!("{refused}"));
    assert_eq!((problem.status, problem.kind.as_str()), (409, "/problems/connector-busy"));
    exchange(&rig, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_during_a_connection_costs_one_login_only() {
    let (rig, network) = behind_network(Sandbox::start(1).await, BadNetworkConfig::default()).await;
    let (_, connection, channel) = rig.session().await;
    exchange(&rig, &channel).await;
    let sandbox = &rig.sandbox;
    let before = sandbox.cloud.pincode_logins();
    sandbox.cloud.expire_tokens();

    let mut state = connection.state();
    network.cut();
    soon("the interruption", state.wait_for(|state| *state == LinkState::Down)).await.unwrap();
    soon("the link", state.wait_for(|state| *state == LinkState::Up)).await.unwrap();
    exchange(&rig, &channel).await;
    assert_eq!(sandbox.cloud.pincode_logins(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flash_survives_a_gateway_that_closes_every_websocket_after_its_lifetime() {
    // the websockets of connector and operator are closed several times while the firmware is written
    let lifetime = Duration::from_secs(3);
    let sandbox = Sandbox::start_with(1, |config| config.socket_lifetime = Some(lifetime)).await;
    let (connector, bus) = (sandbox.connectors[0].clone(), bus());
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vehicle = vehicle(&record, &bus);
    let _agent = TestAgent::start(&sandbox, &connector, &bus, AgentSettings::default());
    let ticket = sandbox.ticket(&connector, record.vin.as_ref().map(|vin| vin.as_str())).await;
    let connection = async {
        loop {
            // the connector may still read its VIN
            if let Ok(connection) = sandbox.operator.connect(ticket.connection().unwrap()).await {
                break connection;
            }
            tokio::task::yield_now().await;
        }
    };
    let connection = soon("the connection", connection).await;
    configure(&connection).await;
    let address = record.ecus[0].address;
    let channel = soon("the channel", connection.open_isotp(isotp(address))).await.unwrap();
    let data: Vec<u8> = (0..250_000_u32).map(|index| (index * 7 + index / 256) as u8).collect();
    let firmware = Firmware { address: 0x0800_0000, data: &data };
    let report = soon("the flash", flash(&channel, firmware, &Timing::default(), &mut |_| {})).await.unwrap();
    assert_eq!(report.bytes, data.len());
    assert!(connection.counters().interruptions() > 0, "no websocket was closed during the flash");
    assert!(vehicle.memory(address).last().is_some_and(|image| image.data == data));
    vehicle.stop().await;
}
