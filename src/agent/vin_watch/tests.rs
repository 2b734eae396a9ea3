use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{CanBus, CanBusExt as _, CanEvent, CanFrame, CanId};
use connector_hal::clock::now;
use connector_hal::future::BoxFuture;

use super::*;
use crate::config::DoipPort;
use crate::config::doip_device::DoipDevice;
use crate::protocol::doip::discovery::Destination;
use crate::protocol::doip::{Announcement, Eid, FurtherAction, Message, ProtocolVersion};
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::doip_network::network::{GatewayConnectError, Network, NetworkError, Stream};
use crate::vehicle::hardware::Hardware;

const SECOND: Duration = Duration::from_secs(1);
const VIN: &str = "WVWZZZAUZEW000001";

/// A connector on a bus in virtual time. A node acknowledges frames, and no ECU has a VIN.
struct WatchRig {
    bus: VirtualBus,
    watch: VinWatch,
    start: Instant,
    _acknowledges: Box<dyn CanBus>,
}

/// A DoIP network that can only be listened to.
#[derive(Clone, Default)]
struct QuietNetwork(Arc<Mutex<Datagrams>>);

#[derive(Default)]
struct Datagrams {
    waiting: VecDeque<Vec<u8>>,
    waker: Option<Waker>,
}

impl QuietNetwork {
    /// A gateway announces this VIN.
    fn announce(&self, vin: &str) {
        let announcement = Announcement {
            vin: vin.as_bytes().try_into().unwrap(),
            address: 0x4010.into(),
            eid: Eid([1; 6]),
            gid: None,
            further_action: FurtherAction::None,
            sync_status: None,
        };
        let mut datagrams = self.0.lock().unwrap();
        datagrams.waiting.push_back(Message::new(ProtocolVersion::V2012, announcement).encode().unwrap());
        if let Some(waker) = datagrams.waker.take() {
            waker.wake();
        }
    }
}

impl Network for QuietNetwork {
    fn destinations(&self) -> Vec<Destination> {
        Vec::new()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut datagrams = self.0.lock().unwrap();
        let Some(datagram) = datagrams.waiting.pop_front() else {
            datagrams.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Poll::Ready(Ok((datagram.len(), ([169, 254, 0, 1], 13400).into())))
    }

    fn send(&mut self, _: Destination, _: &[u8]) -> io::Result<()> {
        panic!("the agent only listens");
    }

    fn connect(
        &self,
        _: SocketAddr,
        _: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>> {
        panic!("the agent only listens");
    }
}

impl WatchRig {
    fn new(ignition: Option<bool>) -> Self {
        Self::with_network(ignition, None)
    }

    /// The network can be listened to, but the VIN cannot be read on it.
    fn with_network(ignition: Option<bool>, network: Option<QuietNetwork>) -> Self {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let acknowledges = Box::new(bus.attach("a node of the vehicle"));
        let mut hardware = Hardware::on_bus(&bus);
        if let Some(network) = network {
            hardware.doip_ports = Arc::new([DoipPort {
                name: None,
                pins: [3, 11],
                device: DoipDevice::Interface("eth0".to_owned()),
            }]);
            hardware.open_doip = Arc::new(move |_, _, purpose| {
                let opened = match purpose {
                    Purpose::Listen => Ok(Box::new(network.clone()) as Box<dyn Network>),
                    Purpose::Talk => {
                        Err(NetworkError { device: "eth0".to_owned(), problem: "no address".to_owned() })
                    }
                };
                Box::pin(std::future::ready(opened))
            });
        }
        let watch = VinWatch::spawn(
            hardware,
            VinSettings::default(),
            SharedPolicy::default(),
            ignition,
            WatchStart::Ordinary,
        );
        Self { bus, watch, start: now(), _acknowledges: acknowledges }
    }

    /// The VIN of the next reading and the second in which the reading ended; `None` if no reading ends
    /// within this time.
    async fn reading_within(&mut self, time: Duration) -> Option<(Option<Vin>, u64)> {
        let found = std::future::poll_fn(|cx| self.watch.poll_found(cx));
        match tokio::time::timeout(time, found).await.ok()?? {
            Found::Vin { report, .. } => Some((report.vin, now().duration_since(self.start).as_secs())),
            Found::Activity => panic!("the watch only listens"),
        }
    }

    /// The times of readings without a VIN, until there was no reading for an hour.
    async fn readings_without_vin(&mut self) -> Vec<u64> {
        let mut readings = Vec::new();
        while let Some((vin, at)) = self.reading_within(3600 * SECOND).await {
            assert_eq!(vin, None);
            readings.push(at);
        }
        readings
    }

    /// Starts an ECU that answers mode 09 with one VIN, and sends nothing else.
    fn ecu_starts(&self) {
        let mut ecu = self.bus.attach("the engine's ECU");
        tokio::spawn(async move {
            let [response, flow_control] = [0x7E8, 0x7E0].map(|id| CanId::standard(id).unwrap());
            let send = async |ecu: &mut dyn CanBus, data: &[u8]| {
                ecu.send(&CanFrame::new(response, data).unwrap()).await.unwrap();
            };
            let mut pdu = vec![0x49, 0x02, 0x01];
            pdu.extend_from_slice(VIN.as_bytes());
            loop {
                let CanEvent::Received { frame, .. } = ecu.event().await.unwrap() else { continue };
                if frame.data().starts_with(&[0x02, 0x09, 0x02]) {
                    let first = [&[0x10, 20][..], &pdu[..6]].concat();
                    send(&mut ecu, &first).await;
                } else if frame.id() == flow_control && frame.data().starts_with(&[0x30]) {
                    for (number, data) in (0x21..).zip(pdu[6..].chunks(7)) {
                        send(&mut ecu, &[&[number][..], data].concat()).await;
                    }
                }
            }
        });
    }

    /// Starts another tester that keeps a session with an ECU alive.
    fn tester_starts(&self) -> tokio::task::JoinHandle<()> {
        let mut node = self.bus.attach("another tester");
        tokio::spawn(async move {
            let frame = CanFrame::new(CanId::standard(0x7E1).unwrap(), &[2, 0x3E, 0x80]).unwrap();
            loop {
                node.send(&frame).await.unwrap();
                tokio::time::sleep(2 * SECOND).await;
            }
        })
    }

    /// Counts the requests on the OBD identifier from now on.
    fn count_questions(&self) -> Arc<std::sync::atomic::AtomicUsize> {
        let mut node = self.bus.attach("a node that counts");
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            loop {
                if let CanEvent::Received { frame, .. } = node.event().await.unwrap()
                    && frame.id().raw() == 0x7DF
                {
                    counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        count
    }

    /// Starts a node that sends this number of frames, five a second.
    fn bus_sends(&self, frames: usize) {
        let mut node = self.bus.attach("another node of the vehicle");
        tokio::spawn(async move {
            let frame = CanFrame::new(CanId::standard(0x123).unwrap(), &[1]).unwrap();
            for _ in 0..frames {
                node.send(&frame).await.unwrap();
                // an adapter takes no more frames while its outcomes are unread
                let read = async { while node.event().await.is_ok() {} };
                let _paused = tokio::time::timeout(Duration::from_millis(200), read).await;
            }
        });
    }

    /// Starts a node that sends a frame five times a second.
    fn bus_wakes(&self) {
        self.bus_sends(usize::MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vin_is_read_again_until_the_ecu_is_ready_and_then_no_more() {
    let mut rig = WatchRig::new(Some(true));
    assert_eq!(rig.reading_within(2 * SECOND).await.unwrap().0, None);
    rig.ecu_starts();
    let (vin, at) = rig.reading_within(10 * SECOND).await.unwrap();
    assert_eq!((vin, at), (Some(VIN.parse().unwrap()), 8), "5 s later, after 3 s of listening");
    let frames = rig.bus.statistics().frames;
    assert!(rig.reading_within(3600 * SECOND).await.is_none());
    assert_eq!(rig.bus.statistics().frames, frames);
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_without_a_vin_is_asked_less_often_and_finally_not_at_all() {
    let mut rig = WatchRig::new(Some(true));
    let readings = rig.readings_without_vin().await;
    assert_eq!(readings.len(), 7, "{readings:?}");
    let pauses: Vec<_> = readings.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, least) in pauses.iter().zip([5, 10, 20, 40, 80, 160]) {
        // each reading listens for three seconds first
        assert!((least + 3..=least + 5).contains(pause), "{pauses:?}");
    }
    // another reason to read starts the attempts again
    rig.watch.read(true).await;
    assert_eq!(rig.readings_without_vin().await.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn at_the_start_no_ecu_is_asked_while_the_ignition_is_off() {
    let mut rig = WatchRig::new(Some(false));
    rig.ecu_starts();
    assert!(rig.reading_within(3600 * SECOND).await.is_none());
    assert_eq!(rig.bus.statistics().frames, 0);
    rig.watch.ignition(Some(true)).await;
    assert_eq!(rig.reading_within(2 * SECOND).await.unwrap().0, Some(VIN.parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn with_the_ignition_off_an_ecu_is_asked_once_frames_were_heard_for_three_seconds() {
    let mut rig = WatchRig::new(Some(false));
    rig.ecu_starts();
    rig.bus_sends(12);
    assert!(rig.reading_within(60 * SECOND).await.is_none(), "2.4 s");
    rig.bus_sends(17);
    assert_eq!(rig.reading_within(60 * SECOND).await.unwrap().0, Some(VIN.parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn with_the_ignition_off_a_bus_that_wakes_is_only_asked_after_three_seconds() {
    let mut rig = WatchRig::new(Some(true));
    assert!(rig.reading_within(2 * SECOND).await.is_some());
    rig.watch.ignition(Some(false)).await;
    assert!(rig.reading_within(60 * SECOND).await.is_none());
    rig.ecu_starts();
    rig.bus_wakes();
    assert!(rig.reading_within(2900 * Duration::from_millis(1)).await.is_none());
    // the reading itself listens for 3 s, because no request waits for it
    assert!(rig.reading_within(5 * SECOND).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn no_ecu_is_asked_again_while_the_ignition_is_off() {
    let mut rig = WatchRig::new(Some(true));
    assert!(rig.reading_within(2 * SECOND).await.is_some());
    rig.watch.ignition(Some(false)).await;
    let frames = rig.bus.statistics().frames;
    assert!(rig.reading_within(3600 * SECOND).await.is_none());
    assert_eq!(rig.bus.statistics().frames, frames);
    rig.watch.ignition(Some(true)).await;
    assert!(rig.reading_within(5 * SECOND).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn with_an_unknown_ignition_only_a_bus_in_use_is_asked_again() {
    let mut rig = WatchRig::new(None);
    assert_eq!(rig.readings_without_vin().await, [0]);
    rig.bus_wakes();
    // the first reading happens because the silent bus has become active
    assert_eq!(rig.readings_without_vin().await.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_session_is_not_disturbed_and_its_vin_is_not_read_again() {
    let mut rig = WatchRig::new(Some(true));
    assert!(rig.reading_within(2 * SECOND).await.is_some());
    rig.watch.release().await;
    rig.watch.ignition(None).await;
    rig.watch.ignition(Some(true)).await;
    assert!(rig.reading_within(3600 * SECOND).await.is_none());
    rig.watch.resume(None).await;
    assert!(rig.reading_within(4 * SECOND).await.is_none());
    assert!(rig.reading_within(6 * SECOND).await.is_some());
    rig.watch.release().await;
    rig.watch.resume(Some(VIN.parse().unwrap())).await;
    assert!(rig.reading_within(3600 * SECOND).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_agent_asks_no_ecu() {
    let mut rig = WatchRig::new(Some(true));
    assert!(rig.reading_within(2 * SECOND).await.is_some());
    rig.watch.listen().await;
    let frames = rig.bus.statistics().frames;
    assert!(rig.reading_within(3600 * SECOND).await.is_none());
    assert_eq!(rig.bus.statistics().frames, frames);
}

#[tokio::test(start_paused = true)]
async fn an_announcement_of_another_vin_causes_a_reading_and_one_of_the_same_vin_does_not() {
    let network = QuietNetwork::default();
    let mut rig = WatchRig::with_network(Some(true), Some(network.clone()));
    rig.ecu_starts();
    let vin = Some(VIN.parse().unwrap());
    assert_eq!(rig.reading_within(2 * SECOND).await, Some((vin, 0)));
    network.announce(VIN);
    assert_eq!(rig.reading_within(3600 * SECOND).await, None);
    network.announce("1M8GDM9AXKP042788");
    // the reading listens for three seconds first
    assert_eq!(rig.reading_within(4 * SECOND).await, Some((vin, 3603)));
    // a gateway that repeats its announcement does not cause one reading after the other
    network.announce("1M8GDM9AXKP042788");
    assert_eq!(rig.reading_within(7 * SECOND).await, None);
    assert_eq!(rig.reading_within(2 * SECOND).await, Some((vin, 3611)));
}

#[tokio::test(start_paused = true)]
async fn a_reading_again_that_no_request_waits_for_listens_first() {
    for is_awaited in [false, true] {
        let mut rig = WatchRig::new(Some(true));
        rig.ecu_starts();
        assert!(rig.reading_within(2 * SECOND).await.unwrap().0.is_some());
        let questions = rig.count_questions();
        let tester = rig.tester_starts();
        // the other tester sends again after two seconds
        tokio::time::sleep(SECOND / 2).await;
        rig.watch.read(is_awaited).await;
        rig.reading_within(10 * SECOND).await.expect("a reading");
        let asked = questions.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(asked > 0, is_awaited, "{asked} questions");
        tester.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_again_beside_another_tester_asks_nothing_and_is_tried_later() {
    let mut rig = WatchRig::new(Some(true));
    assert_eq!(rig.reading_within(2 * SECOND).await.unwrap().0, None);
    rig.ecu_starts();
    let tester = rig.tester_starts();
    let questions = rig.count_questions();
    for pause in [5, 10] {
        assert_eq!(rig.reading_within((pause + 4) * SECOND).await.unwrap().0, None);
    }
    assert_eq!(questions.load(std::sync::atomic::Ordering::Relaxed), 0);
    tester.abort();
    assert_eq!(rig.reading_within(25 * SECOND).await.unwrap().0, Some(VIN.parse().unwrap()));
}
