//! What the agent does with more than it can take.

use connector_agent::relay::wire::codec::PduFlags;
use connector_operator::client::CloseReason;
use connector_test_support::agent::{AgentSettings, Rig, Sandbox, closed};

/// A vehicle with an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_bound_closes_the_connection_with_a_reason() {
    let settings = AgentSettings { max_pdu: Some(4095), ..AgentSettings::default() };
    let mut rig = Rig::start_in(Sandbox::start(1).await, VEHICLE, settings).await;
    let (ticket, connection, channel) = rig.session().await;
    channel.send(&vec![0x36; 100_000], PduFlags::default()).await.unwrap();
    assert_eq!(closed(&connection).await, CloseReason::Remote("overflow".to_owned()));
    rig.sandbox.operator.complete(&ticket).await.unwrap();
    rig.portal.sees_online().await;
    rig.session().await;
}
