//! The end of an agent that is asked to end while an ECU is being programmed.

use connector_operator::client::{CloseReason, Timing};
use connector_operator::flash::{Firmware, Step, flash};
use connector_test_support::agent::{Rig, closed};
use connector_test_support::soon;

/// A vehicle with an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";
/// Several blocks of 4095 bytes.
const FIRMWARE: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_in_the_middle_of_a_download_waits_for_its_end() {
    let rig = Rig::start(VEHICLE).await;
    let (_, connection, channel) = rig.session().await;
    let data = vec![0xA5; FIRMWARE];
    let firmware = Firmware { address: 0x0800_0000, data: &data };
    let mut agent = Some(rig.agent);
    let mut end = None;
    let mut report = |step: Step| {
        if matches!(step, Step::Transfer { .. })
            && let Some(agent) = agent.take()
        {
            end = Some(tokio::spawn(agent.shut_down()));
        }
    };
    let report = soon("the flash", flash(&channel, firmware, &Timing::default(), &mut report)).await.unwrap();
    assert_eq!(report.bytes, FIRMWARE);
    assert_eq!(closed(&connection).await, CloseReason::Remote("shutdown".to_owned()));
    soon("the agent's end", end.expect("a shutdown during the transfer")).await.unwrap();
    let memory = rig.vehicle.memory(rig.record.ecus[0].address);
    assert_eq!(memory.last().expect("an image").data, data);
}
