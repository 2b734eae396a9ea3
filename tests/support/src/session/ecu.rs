//! The vehicle's side: a node that records every frame, and ECUs that answer by script.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{Addressing, Config, Endpoint, Event};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualCan};
use connector_hal::can::{CanBusExt, CanEvent, CanFrame};
use tokio::sync::mpsc;

use crate::{id, now};

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// A node that records all frames of other nodes and sends frames on demand; it leaves the bus when dropped.
pub struct Node {
    frames: Arc<Mutex<Vec<(Instant, CanFrame)>>>,
    to_send: mpsc::UnboundedSender<CanFrame>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    pub fn attach(bus: &VirtualBus) -> Self {
        let mut can = bus.attach("node");
        let frames = Arc::new(Mutex::new(Vec::new()));
        let (to_send, mut orders) = mpsc::unbounded_channel();
        let noted = Arc::clone(&frames);
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    // events first: an adapter accepts no more frames while its outcomes are unread
                    biased;
                    event = can.event() => match event {
                        Ok(CanEvent::Received { frame, at }) => noted.lock().unwrap().push((at, frame)),
                        Ok(_) => {}
                        Err(_) => return,
                    },
                    Some(frame) = orders.recv() => can.send(&frame).await.unwrap(),
                }
            }
        });
        Self { frames, to_send, task }
    }

    pub fn send(&self, frame: CanFrame) {
        self.to_send.send(frame).unwrap();
    }

    /// All data and remote frames so far.
    pub fn frames(&self) -> Vec<CanFrame> {
        self.timed_frames().into_iter().map(|(_, frame)| frame).collect()
    }

    pub fn timed_frames(&self) -> Vec<(Instant, CanFrame)> {
        let frames = self.frames.lock().unwrap();
        frames.iter().filter(|(_, frame)| !frame.is_error()).copied().collect()
    }

    /// The PDUs of all single frames with this identifier.
    pub fn single_frames(&self, number: u32) -> Vec<Vec<u8>> {
        let frames =
            self.frames().into_iter().filter(|frame| frame.id() == id(number) && frame.data()[0] < 8);
        frames.map(|frame| frame.data()[1..][..usize::from(frame.data()[0])].to_vec()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The PDUs that an ECU sends, each with its delay after the request.
pub type Answers = Vec<(Duration, Vec<u8>)>;

/// The PDUs that an ECU received, with their times.
type Requests = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// An ECU behind ISO-TP that answers by a script; it leaves the bus when dropped.
pub struct Ecu {
    requests: Requests,
    task: tokio::task::JoinHandle<()>,
}

impl Ecu {
    /// An ECU with normal addressing that receives on `request` and answers on `response`.
    pub fn attach(
        bus: &VirtualBus,
        request: u32,
        response: u32,
        script: impl FnMut(&[u8]) -> Answers + Send + 'static,
    ) -> Self {
        let addressing = Addressing::normal(id(response), id(request));
        Self::with_config(bus, Config::new(addressing), script)
    }

    pub fn with_config(
        bus: &VirtualBus,
        config: Config,
        script: impl FnMut(&[u8]) -> Answers + Send + 'static,
    ) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(run(bus.attach("ecu"), Endpoint::new(config), script, Arc::clone(&requests)));
        Self { requests, task }
    }

    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.timed_requests().into_iter().map(|(_, request)| request).collect()
    }

    pub fn timed_requests(&self) -> Vec<(Instant, Vec<u8>)> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Ecu {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers every request immediately with its positive response, which echoes the request's second byte.
pub fn positive(request: &[u8]) -> Answers {
    let mut answer = vec![request[0].wrapping_add(0x40)];
    answer.extend(request.get(1));
    vec![(Duration::ZERO, answer)]
}

/// Never answers.
pub fn silent(_request: &[u8]) -> Answers {
    Vec::new()
}

async fn run(
    mut can: VirtualCan,
    mut endpoint: Endpoint,
    mut script: impl FnMut(&[u8]) -> Answers,
    requests: Requests,
) {
    let mut due: Vec<(Instant, Vec<u8>)> = Vec::new();
    loop {
        while let Some(event) = endpoint.poll_event() {
            if let Event::Received { pdu, .. } = event {
                due.extend(script(&pdu).into_iter().map(|(after, answer)| (now() + after, answer)));
                requests.lock().unwrap().push((now(), pdu));
            }
        }
        due.sort_by_key(|(at, _)| *at);
        if due.first().is_some_and(|(at, _)| *at <= now()) && !endpoint.is_sending() {
            endpoint.send(now(), &due.remove(0).1).unwrap();
        }
        while let Some(frame) = endpoint.poll_transmit(now()) {
            can.send(&frame).await.unwrap();
        }
        let next_answer = due.first().filter(|_| !endpoint.is_sending()).map(|(at, _)| *at);
        let deadline = [endpoint.poll_timeout().map(|(at, _)| at), next_answer].into_iter().flatten().min();
        tokio::select! {
            event = can.event() => match event {
                Ok(CanEvent::Received { frame, .. }) => { endpoint.handle_frame(now(), &frame); }
                Ok(CanEvent::Transmitted { .. }) => endpoint.handle_transmitted(now()),
                Ok(_) => {}
                Err(_) => return,
            },
            () = sleep_until(deadline) => endpoint.handle_timeout(now()),
        }
    }
}
