//! Reads any bytes, line by line, as the messages of an operator to a session: text messages, and otherwise
//! binary ones.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use connector_agent::policy::SharedPolicy;
use connector_agent::relay::connection::{RelayConnection, RelaySettings};
use connector_agent::relay::limits::RelayLimits;
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::request::Request;
use connector_hal::can::{CanCapabilities, CanEvent, CanFrame};
use connector_test_support::hardware::HardwareBuilder;
use connector_test_support::now;
use connector_test_support::scripted_can::{Script, ScriptedCan};
use uuid::Uuid;

/// The connection of the messages in the corpus.
const UUID: Uuid = Uuid::from_u128(0x97a0_0001_0000_4000_8000_0000_0000_0001);

/// A bus that sends each frame immediately and receives it back.
#[derive(Default)]
struct Echo(Vec<CanEvent>);

impl Script for Echo {
    fn capabilities(&self) -> CanCapabilities {
        CanCapabilities::default()
    }

    fn poll_send(&mut self, _cx: &mut Context<'_>, frame: &CanFrame) -> Poll<()> {
        if self.0.len() > 64 {
            return Poll::Pending;
        }
        let at = now();
        self.0.push(CanEvent::Transmitted { at });
        self.0.push(CanEvent::Received { frame: *frame, at });
        Poll::Ready(())
    }

    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<CanEvent> {
        if self.0.is_empty() { Poll::Pending } else { Poll::Ready(self.0.remove(0)) }
    }
}

/// No line may break the session, or anything that earlier lines have set up.
pub(super) fn drive(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let now = now();
    let hardware = HardwareBuilder::in_runtime_time()
        .can_port([6, 14], "can6", true)
        .can_port([3, 11], "can3", false)
        .open_can(|_| Ok(Box::new(ScriptedCan(Echo::default()))))
        .terminal15()
        .build();
    let limits = RelayLimits { max_kept_bytes: 100_000, ..RelayLimits::default() };
    let settings = RelaySettings {
        connection_uuid: UUID,
        hold: Duration::from_secs(30),
        limits,
        hardware,
        policy: SharedPolicy::default(),
    };
    let mut session = RelayConnection::new(settings, now);
    let mut cx = Context::from_waker(Waker::noop());
    for line in data.split(|byte| *byte == b'\n') {
        match serde_json::from_slice::<Envelope>(line) {
            Ok(envelope) => match Request::parse(&envelope) {
                Ok(request) => session.handle_request(now, request, envelope.request_id),
                Err(problem) => assert_eq!(problem.in_reply_to.as_ref(), Some(&envelope.action)),
            },
            Err(_) => session.handle_message(now, &as_of_this_connection(line, session.received())),
        }
        for _ in 0..4 {
            if session.poll_drive(&mut cx).is_pending() {
                break;
            }
        }
        while let Some(text) = session.poll_text() {
            assert!(serde_json::from_str::<Envelope>(&text.to_text()).is_ok_and(|again| again == text));
        }
        while session.poll_message(now).is_some() {}
    }
}

/// The line as a binary message with this connection's tag and the next sequence number.
fn as_of_this_connection(line: &[u8], received: u32) -> Vec<u8> {
    let mut message = line.to_vec();
    if message.len() >= 24 {
        message[..2].copy_from_slice(&[1, 0]);
        message[4..8].copy_from_slice(&UUID.as_bytes()[..4]);
        message[8..12].copy_from_slice(&(received + 1).to_be_bytes());
        message[12..16].copy_from_slice(&[0; 4]);
    }
    message
}
