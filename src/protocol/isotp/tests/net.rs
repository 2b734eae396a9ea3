//! Endpoints on one bus, in virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use crate::protocol::isotp::{Endpoint, Event, FunctionalEndpoint, SendError, Timer};

/// Either kind of endpoint.
pub(super) enum Node {
    Point(Box<Endpoint>),
    Functional(Box<FunctionalEndpoint>),
}

macro_rules! each {
    ($node:expr, $endpoint:ident => $call:expr) => {
        match $node {
            Node::Point($endpoint) => $call,
            Node::Functional($endpoint) => $call,
        }
    };
}

/// Decides from a frame and its number on the bus whether the frame is lost.
type Loss = Box<dyn FnMut(usize, &CanFrame) -> bool>;

/// A bus that carries one frame after the other. All other nodes receive each frame.
pub(crate) struct Net {
    pub now: Instant,
    pub started: Instant,
    /// The time of a frame on the bus.
    pub frame_time: Duration,
    /// The time from the end of a frame to its confirmation at the sender.
    pub confirm_delay: Duration,
    /// The time from the end of a frame to its reception by the other nodes.
    pub receive_delay: Duration,
    /// Whether the n-th frame on the bus is lost on its way to the receivers.
    pub lose: Loss,
    pub nodes: Vec<Node>,
    /// Every frame with the time of its end and the number of its sender.
    pub log: Vec<(Duration, usize, CanFrame)>,
    /// The events of each node, with their times.
    pub events: Vec<(Duration, usize, Event)>,
    free_at: Instant,
    actions: BTreeMap<(Instant, usize), Action>,
    counter: usize,
}

enum Action {
    Confirm(usize),
    Receive(usize, CanFrame),
}

impl Net {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        let now = Instant::now();
        Self {
            now,
            started: now,
            frame_time: Duration::from_micros(230),
            confirm_delay: Duration::from_micros(20),
            receive_delay: Duration::from_micros(20),
            lose: Box::new(|_, _| false),
            nodes,
            log: Vec::new(),
            events: Vec::new(),
            free_at: now,
            actions: BTreeMap::new(),
            counter: 0,
        }
    }

    pub(super) fn pair(a: Endpoint, b: Endpoint) -> Self {
        Self::new(vec![Node::Point(Box::new(a)), Node::Point(Box::new(b))])
    }

    pub(super) fn send(&mut self, node: usize, pdu: &[u8]) -> Result<(), SendError> {
        let now = self.now;
        each!(&mut self.nodes[node], endpoint => endpoint.send(now, pdu))
    }

    /// Runs until no frame and no timer is left.
    pub(super) fn run(&mut self) {
        while self.step() {}
    }

    /// The PDUs that a node received, in order.
    pub(super) fn received(&self, node: usize) -> Vec<&[u8]> {
        let of_node = self.events.iter().filter(|(_, at, _)| *at == node);
        of_node
            .filter_map(|(_, _, event)| match event {
                Event::Received { pdu, .. } => Some(pdu.as_slice()),
                _ => None,
            })
            .collect()
    }

    /// The events of a node, without received PDUs and beginnings of receptions.
    pub(super) fn outcomes(&self, node: usize) -> Vec<&Event> {
        let of_node = self.events.iter().filter(|(_, at, _)| *at == node).map(|(_, _, event)| event);
        of_node.filter(|e| !matches!(e, Event::Received { .. } | Event::ReceptionStarted { .. })).collect()
    }

    /// The frames on the bus, as candump prints them.
    pub(super) fn candump(&self) -> Vec<String> {
        self.log.iter().map(|(_, _, frame)| frame.to_string()).collect()
    }

    fn step(&mut self) -> bool {
        self.drive();
        let deadline = self.nodes.iter().filter_map(|node| each!(node, endpoint => endpoint.poll_timeout()));
        let deadline: Option<(Instant, Timer)> = deadline.min_by_key(|(at, _)| *at);
        let action = self.actions.first_key_value().map(|(&(at, _), _)| at);
        let next = match (deadline, action) {
            (None, None) => return false,
            (Some((deadline, _)), Some(action)) => deadline.min(action),
            (deadline, action) => deadline.map(|(at, _)| at).or(action).expect("one of them"),
        };
        assert!(
            next.duration_since(self.started) < Duration::from_secs(3600),
            "the endpoints never become idle"
        );
        self.now = self.now.max(next);
        let now = self.now;
        while let Some(entry) = self.actions.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Action::Confirm(node) => {
                    each!(&mut self.nodes[node], endpoint => endpoint.handle_transmitted(now));
                }
                Action::Receive(sender, frame) => {
                    for (index, node) in self.nodes.iter_mut().enumerate() {
                        if index != sender {
                            each!(node, endpoint => endpoint.handle_frame(now, &frame));
                        }
                    }
                }
            }
            self.drive();
        }
        for node in &mut self.nodes {
            each!(node, endpoint => if endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
                endpoint.handle_timeout(now);
                assert!(endpoint.poll_timeout().is_none_or(|(at, _)| at > now), "a timer fires only once");
            });
        }
        true
    }

    fn drive(&mut self) {
        let now = self.now;
        for index in 0..self.nodes.len() {
            while let Some(frame) = each!(&mut self.nodes[index], endpoint => endpoint.poll_transmit(now)) {
                self.put_on_bus(index, frame);
            }
            while let Some(event) = each!(&mut self.nodes[index], endpoint => endpoint.poll_event()) {
                self.events.push((now - self.started, index, event));
            }
        }
    }

    fn put_on_bus(&mut self, sender: usize, frame: CanFrame) {
        let end = self.free_at.max(self.now) + self.frame_time;
        self.free_at = end;
        let lost = (self.lose)(self.log.len(), &frame);
        self.log.push((end - self.started, sender, frame));
        self.counter += 2;
        self.actions.insert((end + self.confirm_delay, self.counter), Action::Confirm(sender));
        if !lost {
            self.actions.insert((end + self.receive_delay, self.counter + 1), Action::Receive(sender, frame));
        }
    }
}
