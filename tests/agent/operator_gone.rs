//! An ECU in its programming session whose operator is gone. The cloud of these tests reports it, or does not notice.

use std::time::Duration;

use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{Payload, PduFlags, Tag};
use connector_sim::vehicle::Vehicle;
use connector_sim::vehicle::ecu::{EcuStatus, Session};
use connector_test_support::agent::{AgentSettings, bus, vehicle};
use connector_test_support::config::hs;
use connector_test_support::{SECOND, data, now, soon};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::scripted::{Rig, Websocket};

/// A vehicle with an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";
const CONNECTION: Uuid = Uuid::from_u128(0x97a0_0001_0000_4000_8000_0000_0000_0001);
const PROGRAMMING_SESSION: [u8; 2] = [0x10, 0x02];
/// Longer than the five seconds after which an ECU returns to its default session (S3).
const HOLD_SECONDS: u64 = 7;

/// The cloud's end of a connection whose operator has put an ECU into its programming session.
struct Programming {
    websocket: Websocket,
    ecu: watch::Receiver<EcuStatus>,
    _rig: Rig,
    _vehicle: Vehicle,
}

impl Programming {
    /// An operator with something to acknowledge counts as gone after `silence`.
    async fn start(silence: Duration) -> Self {
        let bus = bus();
        let record = data::record(VEHICLE);
        let address = record.ecus[0].address;
        let vehicle = vehicle(&record, &bus);
        let ecu = vehicle.ecu(address).unwrap().status.clone();
        let rig =
            Rig::start_on(&bus, AgentSettings::default(), |config| config.relay.operator_silence = silence)
                .await;
        let (mut websocket, _) = rig.online().await;
        let open = json!({"connection_uuid": CONNECTION, "hold_seconds": HOLD_SECONDS});
        websocket.open("1", open).await;
        let buses = json!({"connection_uuid": CONNECTION, "buses": [hs()]});
        assert_eq!(websocket.ask("2", "configureBuses", buses).await["action"], "busesConfigured");
        let isotp = json!({"bus_name": "HS", "request_id": address.request.raw(),
                           "response_id": address.response.raw(), "keep_alive": "enabled"});
        let channel = json!({"connection_uuid": CONNECTION, "channel": 1, "isotp_channel": isotp});
        assert_eq!(websocket.ask("3", "openChannel", channel).await["action"], "channelOpened");
        let mut operator = Link::new(Role::Operator, Tag::from(CONNECTION), now());
        let request = Payload::Pdu { address: 0, flags: PduFlags::default(), data: &PROGRAMMING_SESSION };
        operator.push(now(), now(), 1, request).unwrap();
        websocket.relay(operator.poll_message(now()).unwrap()).await;
        let mut programming = Self { websocket, ecu, _rig: rig, _vehicle: vehicle };
        programming.enters(Session::Programming).await;
        programming
    }

    async fn enters(&mut self, session: Session) {
        soon("the ECU's session", self.ecu.wait_for(|ecu| ecu.session == session)).await.unwrap();
    }

    /// The connection is held, the ECU's session too, and both end.
    async fn ends(mut self) {
        let closed = self.websocket.hear().await;
        let content = json!({"connection_uuid": CONNECTION, "reason": "link-lost"});
        assert_eq!((&closed["action"], &closed["message"]), (&json!("connectionClosed"), &content));
        assert_eq!(self.ecu.borrow().session, Session::Programming, "held by TesterPresent");
        self.enters(Session::Default).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ecu_leaves_its_programming_session_after_the_operator_was_killed() {
    let mut programming = Programming::start(60 * SECOND).await;
    programming.websocket.say("operatorLeft", json!({"connection_uuid": CONNECTION})).await;
    programming.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ecu_leaves_its_programming_session_while_the_operators_process_hangs() {
    Programming::start(SECOND).await.ends().await;
}
