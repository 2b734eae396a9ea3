//! A process that was not scheduled for a while: deadlines have passed, and what would have met them waits unread.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use connector_agent::config::{CanPort, IsotpStack};
use connector_agent::relay::connection::{Session, SessionSettings};
use connector_agent::relay::limits::SessionLimits;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::{EventCode, Payload, PduFlags, Tag};
use connector_agent::relay::wire::request::Request;
use connector_agent::vehicle::hardware::Hardware;
use connector_hal::bus::BusStatus;
use connector_hal::can::{
    CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanId, CanSettings,
};
use connector_hal::future::BoxFuture;
use connector_hal::timer::TimerKind;
use serde_json::{Value, json};
use uuid::Uuid;

const UUID: Uuid = Uuid::from_u128(7);

/// An adapter whose events the test decides.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<(VecDeque<CanEvent>, Option<Waker>)>>);

impl CanBus for Scripted {
    fn device(&self) -> &str {
        "scripted"
    }

    fn capabilities(&self) -> CanCapabilities {
        CanCapabilities { fd: false, listen_only: true, set_bit_rate: true, confirms_transmission: true }
    }

    fn status(&self) -> BusStatus {
        BusStatus::default()
    }

    fn configure(&mut self, _: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async { Ok(()) })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async { Ok(()) })
    }

    fn set_filters(&mut self, _: &[CanFilter]) -> Result<(), CanError> {
        Ok(())
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &CanFrame) -> Poll<Result<(), CanError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        let mut inner = self.0.lock().unwrap();
        match inner.0.pop_front() {
            Some(event) => Poll::Ready(Ok(event)),
            None => {
                inner.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn ask(session: &mut Session, action: &str, message: &Value) {
    let request = Request::parse(&Envelope::new(action, message)).unwrap();
    session.handle_request(now(), request, None);
}

/// Drives the session until nothing is left to do.
async fn settle(session: &mut Session) {
    poll_fn(|cx| {
        while session.poll_drive(cx).is_ready() {}
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_that_waits_behind_other_frames_is_not_mistaken_for_none() {
    let bus = Scripted::default();
    let opened = bus.clone();
    let hardware = Hardware {
        can_ports: Arc::new([CanPort {
            pins: [6, 14],
            device: "scripted".to_owned(),
            fd: false,
            isotp: IsotpStack::Auto,
        }]),
        open_can: Arc::new(move |_: &str| {
            let bus: Box<dyn CanBus> = Box::new(opened.clone());
            Box::pin(std::future::ready(Ok(bus)))
        }),
        timer: TimerKind::Runtime,
        ..Hardware::new([])
    };
    let hold = Duration::from_secs(30);
    let settings =
        SessionSettings { connection_uuid: UUID, hold, limits: SessionLimits::default(), hardware };
    let mut session = Session::new(settings, now());
    let can_bus = json!({"pin_plus": 6, "pin_min": 14, "can_bit_rate": 500_000});
    let buses = json!({"connection_uuid": UUID, "buses": [{"bus_name": "HS", "can_bus": can_bus}]});
    ask(&mut session, "configureBuses", &buses);
    settle(&mut session).await;
    let channel = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8});
    ask(
        &mut session,
        "openChannel",
        &json!({"connection_uuid": UUID, "channel": 1, "isotp_channel": channel}),
    );
    let mut operator = Link::new(Role::Operator, Tag::from(UUID), now());
    let payload =
        Payload::Pdu { address: 0, flags: PduFlags { chained: false, confirm: true }, data: &[0x3E, 0x00] };
    operator.push(now(), now(), 1, payload).unwrap();
    session.handle_message(now(), &operator.poll_message(now()).unwrap());
    settle(&mut session).await;

    // N_As is one second; the process gets no time for longer, while other nodes talk and the frame is acknowledged
    let sent_at = now() + Duration::from_millis(1);
    tokio::time::advance(Duration::from_millis(1100)).await;
    let frame = CanFrame::new(CanId::standard(0x123).unwrap(), &[0; 8]).unwrap();
    {
        let mut inner = bus.0.lock().unwrap();
        inner.0.extend((0..200).map(|_| CanEvent::Received { frame, at: sent_at }));
        inner.0.push_back(CanEvent::Transmitted { at: sent_at });
        inner.1.take().unwrap().wake();
    }
    settle(&mut session).await;

    let message = session.poll_message(now()).unwrap();
    let incoming = operator.handle_message(now(), &message).unwrap().unwrap();
    let codes: Vec<_> = incoming
        .records()
        .map(|record| match record.payload {
            Payload::Event { code, .. } => code,
            payload => panic!("{payload:?}"),
        })
        .collect();
    assert_eq!(codes, [EventCode::Sent]);
}
