//! The end of an agent that is asked to end while an ECU is being programmed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use connector_operator::client::{Channel, CloseReason, Timing};
use connector_operator::flash::{Firmware, FlashError, FlashReport, Step, flash};
use connector_sim::vehicle::ecu::Session;
use connector_test_support::agent::{AgentSettings, Rig, Sandbox, closed};
use connector_test_support::soon;

/// A vehicle with an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";
/// Several blocks of 4095 bytes.
const FIRMWARE: &[u8] = &[0xA5; 20_000];

/// Programs the ECU, and begins the end in the middle of the transfer. Returns when both have finished.
async fn program(
    channel: &Channel,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<FlashReport, FlashError> {
    let firmware = Firmware { address: 0x0800_0000, data: FIRMWARE };
    let (mut end, mut ended) = (Some(end), None);
    let mut report = |step: Step| {
        if matches!(step, Step::Transfer { .. })
            && let Some(end) = end.take()
        {
            ended = Some(tokio::spawn(end));
        }
    };
    let programmed = soon("the flash", flash(channel, firmware, &Timing::default(), &mut report)).await;
    soon("the agent's end", ended.expect("a transfer")).await.unwrap();
    programmed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_in_the_middle_of_a_download_waits_for_its_end() {
    let rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    let agent = rig.agent;
    let programmed = program(&channel, async { _ = agent.shut_down().await }).await;
    assert_eq!(programmed.unwrap().bytes, FIRMWARE.len());
    assert_eq!(closed(&connection).await, CloseReason::Remote("shutdown".to_owned()));
    let memory = rig.vehicle.memory(rig.record.ecus[0].address);
    assert_eq!(memory.last().expect("an image").data, FIRMWARE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_that_cannot_wait_sends_no_ecu_back_in_the_middle_of_a_download() {
    let rig = Rig::start(VEHICLE).await;
    let (_, _connection, channel) = rig.session().await;
    let status = rig.vehicle.ecu(rig.record.ecus[0].address).unwrap().status.clone();
    let (agent, ecu) = (rig.agent, status.clone());
    let end = async move {
        agent.shut_down_twice().await;
        // the ECU returns by itself 5 s later (S3)
        assert_eq!(ecu.borrow().session, Session::Programming);
    };
    program(&channel, end).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_ends_waits_until_the_adapters_of_its_session_have_left() {
    let left = Arc::new(AtomicUsize::new(0));
    let settings = AgentSettings { left: Some(left.clone()), ..AgentSettings::default() };
    let rig = Rig::start_in(Sandbox::start(1).await, VEHICLE, settings).await;
    let (_, _connection, _channel) = rig.session().await;
    assert_eq!(left.load(Ordering::Relaxed), 0);
    rig.agent.shut_down().await;
    assert_eq!(left.load(Ordering::Relaxed), 1);
}
