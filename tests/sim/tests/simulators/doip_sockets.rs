//! The sockets of the simulated gateway: announcements, broadcasts, silent testers.

use std::net::SocketAddr;
use std::time::Duration;

use connector_agent::protocol::doip::codec::decode_datagram;
use connector_agent::protocol::doip::{ActivationCode, Eid, Message, Payload, ProtocolVersion};
use connector_operator::doip_entity::{ListenConfig, Timeouts};
use connector_sim::vehicle::{DoipConfig, DoipGateway};
use connector_test_support::HANG;
use connector_test_support::data::golf;
use connector_test_support::doip_tool::DoipTool;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

fn listen(announce_to: SocketAddr) -> ListenConfig {
    let anywhere = "127.0.0.1:0".parse().unwrap();
    ListenConfig { announce_to: Some(announce_to), ..ListenConfig::new(anywhere) }
}

fn unused_address() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

async fn hear(socket: &UdpSocket) -> Payload {
    let mut buffer = [0; 256];
    let length = timeout(HANG, socket.recv(&mut buffer)).await.unwrap().unwrap();
    decode_datagram(&buffer[..length]).unwrap().payload
}

#[tokio::test]
async fn a_gateway_announces_itself_three_times() {
    let listener = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let vehicle = golf();
    let config = DoipConfig::new(&vehicle, listen(listener.local_addr().unwrap()));
    let _gateway = DoipGateway::start(&vehicle, config).await.unwrap();
    for _ in 0..3 {
        let message = hear(&listener).await;
        assert!(
            matches!(message, Payload::Announcement(gateway) if gateway.eid == Eid([2, 0, 0, 0, 0x40, 0x10]))
        );
    }
}

#[tokio::test]
async fn a_broadcast_request_is_answered_to_its_sender() {
    let vehicle = golf();
    let gateway =
        DoipGateway::start(&vehicle, DoipConfig::new(&vehicle, listen(unused_address()))).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.set_broadcast(true).unwrap();
    let question = Message::new(ProtocolVersion::Default, Payload::IdentificationRequest).encode().unwrap();
    let broadcast = SocketAddr::from(([127, 255, 255, 255], gateway.addresses().udp.port()));
    socket.send_to(&question, broadcast).await.unwrap();
    let message = hear(&socket).await;
    let vin = vehicle.record.vin.unwrap();
    assert!(
        matches!(message, Payload::Announcement(gateway) if gateway.vin().unwrap() == vin),
        "{message:?}"
    );
}

#[tokio::test]
async fn a_tester_that_never_activates_is_disconnected() {
    let vehicle = golf();
    let mut config = DoipConfig::new(&vehicle, listen(unused_address()));
    config.entity.timeouts =
        Timeouts { initial_inactivity: Duration::from_millis(200), ..Timeouts::default() };
    let gateway = DoipGateway::start(&vehicle, config).await.unwrap();
    let mut silent = TcpStream::connect(gateway.addresses().tcp).await.unwrap();
    assert_eq!(timeout(HANG, silent.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_second_tester_of_the_same_address_takes_over_from_one_that_does_not_answer() {
    let vehicle = golf();
    let mut config = DoipConfig::new(&vehicle, listen(unused_address()));
    config.entity.timeouts.initial_inactivity = HANG;
    let gateway = DoipGateway::start(&vehicle, config).await.unwrap();
    let mut first = DoipTool::activated(gateway.addresses().tcp).await;
    let mut second = DoipTool::connect(gateway.addresses().tcp).await;
    assert_eq!(second.activate().await, ActivationCode::Activated);
    assert_eq!(first.hear().await, Payload::AliveCheckRequest);
    assert_eq!(second.ask(0x4011, &[0x3E, 0]).await, [0x7E, 0]);
}
