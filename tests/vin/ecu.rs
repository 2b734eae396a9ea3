//! Scripted ECUs, with and without a VIN.

use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{Addressing, Config, Endpoint, Event};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualCan};
use connector_hal::can::{CanBusExt, CanEvent, CanFrame, CanId};
use connector_test_support::id;

pub(crate) const VIN: &str = "1M8GDM9AXKP042788";
pub(crate) const OTHER_VIN: &str = "WVWZZZ1KZ6W000001";
pub(crate) const OBD: &[u8] = &[0x09, 0x02];
pub(crate) const UDS: &[u8] = &[0x22, 0xF1, 0x90];
pub(crate) const GMLAN: &[u8] = &[0x1A, 0x90];
pub(crate) const KWP: &[u8] = &[0x21, 0x81];
pub(crate) fn positive(request: &[u8], vin: &str) -> Vec<u8> {
    let mut pdu = request.to_vec();
    pdu[0] += 0x40;
    if request == OBD {
        pdu.push(1);
    }
    pdu.extend_from_slice(vin.as_bytes());
    pdu
}

/// An ECU that answers requests by a script. Each answer has its own delay.
pub(crate) struct Ecu {
    request: CanId,
    pub hears_functional: bool,
    /// Requests, each with the answers to its first, second … occurrence. An answer is a list of delays and
    /// PDUs.
    script: Vec<(Vec<u8>, Vec<Answers>)>,
    pub endpoint: Endpoint,
    due: Vec<(Instant, Vec<u8>)>,
}

pub(crate) type Answers = Vec<(Duration, Vec<u8>)>;

impl Ecu {
    pub(crate) fn new(request: u32, response: u32) -> Self {
        let endpoint = Endpoint::new(Config::new(Addressing::normal(id(response), id(request))));
        Self { request: id(request), hears_functional: true, script: Vec::new(), endpoint, due: Vec::new() }
    }

    pub(crate) fn physical_only(mut self) -> Self {
        self.hears_functional = false;
        self
    }

    pub(crate) fn answering(self, request: &[u8], answer: Vec<u8>) -> Self {
        self.scripted(request, vec![vec![(Duration::from_millis(5), answer)]])
    }

    pub(crate) fn scripted(mut self, request: &[u8], answers: Vec<Answers>) -> Self {
        self.script.push((request.to_vec(), answers));
        self
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        let functional = if self.request.is_extended() { id(0x18DB_33F1) } else { id(0x7DF) };
        if frame.id() == functional && self.hears_functional {
            let length = usize::from(frame.data()[0]);
            self.handle_request(now, frame.data()[1..=length].to_vec());
        }
        self.endpoint.handle_frame(now, frame);
        while let Some(event) = self.endpoint.poll_event() {
            if let Event::Received { pdu, .. } = event {
                self.handle_request(now, pdu);
            }
        }
    }

    fn handle_request(&mut self, now: Instant, request: Vec<u8>) {
        let Some((_, answers)) = self.script.iter_mut().find(|(known, _)| *known == request) else { return };
        let answers = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        self.due.extend(answers.into_iter().map(|(after, pdu)| (now + after, pdu)));
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at);
        self.due.iter().map(|(at, _)| *at).chain(endpoint).min()
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.endpoint.handle_timeout(now);
        if !self.endpoint.is_sending()
            && let Some(index) = self.due.iter().position(|(at, _)| *at <= now)
        {
            self.endpoint.send(now, &self.due.remove(index).1).unwrap();
        }
        self.endpoint.poll_transmit(now)
    }
}

/// Puts the ECUs on the bus as one node. They answer until the bus is dropped.
pub(crate) fn attach(bus: &VirtualBus, ecus: Vec<Ecu>) {
    let node = bus.attach("vehicle");
    tokio::spawn(drive(node, ecus));
}

async fn drive(mut node: VirtualCan, mut ecus: Vec<Ecu>) {
    loop {
        let now = tokio::time::Instant::now().into_std();
        for ecu in &mut ecus {
            while let Some(frame) = ecu.poll_transmit(now) {
                node.send(&frame).await.unwrap();
                ecu.endpoint.handle_transmitted(now);
            }
        }
        let wake_at = ecus.iter().filter_map(Ecu::wake_at).min();
        let wake_at = wake_at.unwrap_or(now + Duration::from_secs(3600));
        tokio::select! {
            event = node.event() => {
                let Ok(event) = event else { return };
                if let CanEvent::Received { frame, .. } = event && frame.is_data() {
                    let now = tokio::time::Instant::now().into_std();
                    ecus.iter_mut().for_each(|ecu| ecu.handle_frame(now, &frame));
                }
            }
            () = tokio::time::sleep_until(wake_at.into()) => {}
        }
    }
}
