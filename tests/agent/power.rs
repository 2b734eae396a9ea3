//! The ignition and the battery: what the agent reports to the operator, and when it sleeps and wakes.

use std::time::Duration;

use connector_agent::config::PowerConfig;
use connector_agent::relay::wire::request::{BusConfig, Terminal15BusConfig, Terminal15ChannelConfig};
use connector_operator::client::{CloseReason, Item};
use connector_test_support::agent::{AgentSettings, Rig, Sandbox, closed};
use connector_test_support::config::{configure, isotp};
use connector_test_support::soon;

const VEHICLE: &str = "AUDI_A3_MK3";

/// A connector that sleeps soon after the voltage is below 11.8 V.
async fn rig() -> Rig {
    let power = PowerConfig {
        sleep_below: Some(11.8.try_into().unwrap()),
        sleep_after: Duration::from_millis(300),
        ..PowerConfig::default()
    };
    let settings = AgentSettings { power, ..AgentSettings::default() };
    Rig::start_in(Sandbox::start(1).await, VEHICLE, settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignition_changes_in_a_session_reach_the_operator_immediately() {
    let rig = Rig::start(VEHICLE).await;
    let (_, connection) = rig.connect().await;
    let terminal15_bus = Some(Terminal15BusConfig { pin: 1 });
    let bus = BusConfig { bus_name: "T15".to_owned(), terminal15_bus, ..BusConfig::default() };
    soon("the bus", connection.configure_buses(vec![bus])).await.unwrap();
    let config = Terminal15ChannelConfig { bus_name: "T15".to_owned() };
    let opened = connection.open_channel(|open| open.terminal15_channel = Some(config)).await;
    let channel = opened.unwrap();
    for on in [true, false, true] {
        rig.agent.board.set_ignition(Some(on));
        let received = soon("the ignition", channel.recv()).await.unwrap();
        assert_eq!(received.item, Item::Terminal15(Some(on)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_voltage_is_reported_and_causes_sleep_until_the_ignition_is_on() {
    let mut rig = rig().await;
    rig.falls_asleep().await;
    rig.agent.board.set_ignition(Some(true));
    rig.wakes().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charged_battery_wakes_the_agent() {
    let mut rig = rig().await;
    rig.falls_asleep().await;
    rig.agent.board.set_voltage(Some(12.6));
    rig.wakes().await;
    rig.agent.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_button_wakes_the_agent_and_shutdown_works_asleep() {
    let mut rig = rig().await;
    rig.falls_asleep().await;
    rig.agent.board.press_button();
    rig.wakes().await;
    rig.falls_asleep().await;
    rig.agent.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unused_session_is_closed_in_order_before_the_agent_sleeps() {
    let mut rig = rig().await;
    let (_, connection) = rig.connect().await;
    configure(&connection).await;
    let _channel = soon("the channel", connection.open_isotp(isotp(rig.ecu()))).await.unwrap();
    rig.falls_asleep().await;
    assert_eq!(closed(&connection).await, CloseReason::Remote("policy".to_owned()));
}
