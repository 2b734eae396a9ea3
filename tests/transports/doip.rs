//! The agent's DoIP client over real sockets, with and without TLS. The peers are the simulated gateway,
//! hostile gateways, and the recording of a real gateway.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_agent::config::DoipPort;
use connector_agent::config::VinSettings;
use connector_agent::config::doip::{DoipConfig, NetworkConfig};
use connector_agent::config::doip_device::DoipDevice;
use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder};
use connector_agent::protocol::doip::connection::{Connection, ConnectionError, ConnectionSettings, Event};
use connector_agent::protocol::doip::discovery::{Destination, Discovery, DiscoveryEvent, Question};
use connector_agent::protocol::doip::{
    ActivationResponse, DiagnosticAck, DiagnosticMessage, HeaderNackCode, LogicalAddress, Message, NodeType,
    Payload, PowerMode, ProtocolVersion,
};
use connector_agent::tls::gateway::DoipTlsConfig;
use connector_agent::vehicle::doip_network::client::{Client, ClientError, ClientEvent};
use connector_agent::vehicle::doip_network::explorer::Explorer;
use connector_agent::vehicle::doip_network::linux::{LinuxNetworks, Purpose};
use connector_agent::vehicle::doip_network::network::Network;
use connector_agent::vehicle::hardware::Hardware;
use connector_agent::vehicle::vin::{VinReport, VinSource, networks_to_read, read_can_and_doip};
use connector_operator::doip_entity::tls::EntityTls;
use connector_operator::doip_entity::{Answer, ListenConfig};
use connector_sim::vehicle::doip::{Carrier, DoipRecording, GATEWAY, Speaker};
use connector_sim::vehicle::{DoipConfig as GatewayConfig, DoipGateway};
use connector_test_support::data::{DOIP_LOG, golf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);
/// A limit that even a busy machine does not reach.
const LONG: Duration = Duration::from_secs(60);

fn listen() -> ListenConfig {
    ListenConfig {
        announce_to: Some("127.0.0.1:9".parse().unwrap()),
        ..ListenConfig::new("127.0.0.1:0".parse().unwrap())
    }
}

async fn gateway(change: impl FnOnce(&mut GatewayConfig)) -> DoipGateway {
    let vehicle = golf();
    let mut config = GatewayConfig::new(&vehicle, listen());
    change(&mut config);
    DoipGateway::start(&vehicle, config).await.unwrap()
}

fn hardware(gateway: SocketAddr, config: DoipConfig) -> Hardware {
    let port = DoipPort { name: None, pins: [3, 11], device: DoipDevice::Host(gateway) };
    Hardware::new([]).with_doip([port], config, None)
}

async fn network(gateway: SocketAddr, tls: DoipTlsConfig) -> Box<dyn Network> {
    let config = Arc::new(DoipConfig { tls, ..DoipConfig::default() });
    let networks = LinuxNetworks::new(config, None);
    let device = DoipDevice::Host(gateway);
    Box::new(networks.open(&device, &NetworkConfig::default(), Purpose::Talk).await.unwrap())
}

/// Drives a client until its connection is active or has failed.
async fn outcome(network: &dyn Network, client: &mut Client) -> Result<(), ClientError> {
    let event = poll_fn(|cx| client.poll(cx, network));
    match tokio::time::timeout(LONG, event).await.unwrap() {
        ClientEvent::Active { .. } => Ok(()),
        ClientEvent::Down(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

async fn activate(gateway: SocketAddr, tls: DoipTlsConfig, by_tls: bool) -> Result<(), ClientError> {
    let network = network(gateway, tls).await;
    let mut client = Client::new(gateway, ConnectionSettings::new(TESTER), by_tls);
    outcome(network.as_ref(), &mut client).await
}

async fn read_vin(gateway: &DoipGateway) -> VinReport {
    read_vin_at(gateway.addresses().tcp).await
}

async fn read_vin_at(gateway: SocketAddr) -> VinReport {
    let hardware = hardware(gateway, DoipConfig::default());
    let settings = VinSettings { budget: LONG, ..VinSettings::default() };
    read_can_and_doip(Vec::new(), networks_to_read(&hardware, settings.budget), &settings).await.report
}

/// The reason why no VIN could be read at this address within `budget`.
async fn reason_for_no_vin(gateway: SocketAddr, tls: DoipTlsConfig, budget: Duration) -> String {
    let hardware = hardware(gateway, DoipConfig { tls, ..DoipConfig::default() });
    let settings = VinSettings { budget, ..VinSettings::default() };
    let reading =
        read_can_and_doip(Vec::new(), networks_to_read(&hardware, settings.budget), &settings).await;
    assert_eq!(reading.report.vin, None);
    let [other] = reading.networks.as_slice() else { panic!("{}", reading.networks.len()) };
    other.why_not.clone()
}

#[tokio::test]
async fn a_named_host_without_identification_is_asked_by_tcp() {
    let gateway = gateway(|config| config.listen.udp_port = Some(0)).await;
    assert_ne!(gateway.addresses().udp.port(), gateway.addresses().tcp.port());
    let report = read_vin(&gateway).await;
    assert_eq!(report.vin, golf().record.vin);
    assert_eq!((report.source, report.address), (Some(VinSource::Doip), Some(GATEWAY.into())));
}

#[tokio::test]
async fn a_gateway_without_a_vin_is_reported_with_the_reason() {
    type Change = fn(&mut GatewayConfig);
    let cases: [(Change, &str); 7] = [
        (
            |config| config.entity.activation.answer = Answer::Always(0x06.into()),
            "the gateway refuses routing: denied: unsupported routing activation type (0x06)",
        ),
        (
            |config| config.entity.activation.answer = Answer::Always(0x07.into()),
            "demands TLS (0x07), and there is none: TLS is not set up: no certificates are trusted; set doip.tls.ca_file",
        ),
        (|config| config.entity.activation.answer = Answer::Never, "has not answered the routing activation"),
        (
            |config| config.entity.activation.answer = Answer::Always(0x11.into()),
            "the routing activation was not confirmed in the vehicle",
        ),
        (|config| config.entity.diagnostic_nack = Some(0x06.into()), "target unreachable (0x06)"),
        (
            |config| {
                config.entity.activation.answer = Answer::Always(0x11.into());
                config.entity.timeouts.initial_inactivity = Duration::from_millis(200);
            },
            "the routing activation was not confirmed in the vehicle: the gateway closed the connection",
        ),
        (
            |config| {
                config.entity.activation.answer = Answer::Never;
                config.entity.timeouts.initial_inactivity = Duration::from_millis(200);
            },
            "the routing activation was not answered: the gateway closed the connection",
        ),
    ];
    for (change, expected) in cases {
        let gateway = gateway(|config| {
            config.forget_vin();
            change(config);
        });
        let reason = reason_for_no_vin(
            gateway.await.addresses().tcp,
            DoipTlsConfig::default(),
            Duration::from_millis(1500),
        )
        .await;
        assert!(reason.contains("gateway 0x4010 at 127.0.0.1:") && reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn a_host_that_is_not_a_gateway_is_reported_with_the_reason() {
    let unused_address = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let budget = Duration::from_millis(300);
    let reason = reason_for_no_vin(unused_address, DoipTlsConfig::default(), budget).await;
    assert!(reason.contains("does not identify itself by UDP") && reason.contains("refused"), "{reason}");
    let http_server = hostile(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let reason =
        reason_for_no_vin(http_server.await, DoipTlsConfig::default(), LONG.min(Duration::from_millis(1500)))
            .await;
    assert!(reason.contains("not DoIP"), "{reason}");
}

#[tokio::test]
async fn a_message_that_cannot_be_read_after_the_routing_is_the_reason_for_no_vin() {
    let server = hostile(|mut stream| async move {
        let mut request = [0; 256];
        // the routing activation is accepted, and the question for the VIN answered by a header of 4 GiB
        let _activation = stream.read(&mut request).await;
        let accepted = [0x02, 0xFD, 0, 6, 0, 0, 0, 9, request[8], request[9], 0x40, 0x10, 0x10, 0, 0, 0, 0];
        stream.write_all(&accepted).await.unwrap();
        let _question = stream.read(&mut request).await;
        let _ = stream.write_all(&[0x02, 0xFD, 0x80, 0x02, 0xFF, 0xFF, 0xFF, 0xFF]).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let budget = Duration::from_millis(1500);
    let reason = reason_for_no_vin(server.await, DoipTlsConfig::default(), budget).await;
    assert!(reason.contains("4294967295"), "{reason}");
}

#[tokio::test]
async fn the_first_request_is_sent_before_the_runtime_sees_the_socket_writable() {
    let gateway = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = gateway.local_addr().unwrap();
    let mut network = network(address, DoipTlsConfig::default()).await;
    network.send(Destination::Host(address), b"who is there?").unwrap();
    let mut buffer = [0; 32];
    let received = tokio::time::timeout(LONG, gateway.recv(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(buffer[..received], *b"who is there?");
}

/// Whether `connector-agent check` accepts a configuration with these DoIP buses, and its output.
async fn check(devices: &[&str]) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let mut config = "[connector]\nuuid = \"97a00001-ade2-4a19-aea4-36e097678ae3\"\npincode = \"1234\"\n\
                      [cloud]\napi_url = \"https://api.cloud.test\"\n\
                      websocket_url = \"wss://ws.cloud.test/\"\n"
        .to_owned();
    for (device, pins) in devices.iter().zip(["[3, 11]", "[1, 9]"]) {
        config += &format!("[[bus]]\nkind = \"doip\"\npins = {pins}\ndevice = \"{device}\"\n");
    }
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_connector-agent"));
    let output = command.arg("check").arg("--config").arg(&file).output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_check_does_not_open_doip_devices_as_can() {
    let (is_accepted, output) = check(&["lo", "192.0.2.7:13400"]).await;
    assert!(is_accepted && output.trim_end().ends_with("no errors"), "{output}");
    let (is_accepted, output) = check(&["fe80::1%lo", "doip:[fe80::1%1]:13400"]).await;
    assert!(is_accepted && output.trim_end().ends_with("no errors"), "{output}");
    for (device, expected) in [
        ("no-such-if", "the device no-such-if does not exist"),
        ("fe80::1%no-such-if", "the device fe80::1%no-such-if does not exist"),
        ("fe80::1", "is not a network interface or gateway"),
    ] {
        let (is_accepted, output) = check(&[device]).await;
        assert!(!is_accepted && output.contains(expected), "{output}");
    }
}

#[tokio::test]
async fn the_command_reports_why_there_is_no_vin() {
    let gateway = gateway(|config| {
        config.forget_vin();
        config.entity.activation.answer = Answer::Always(0x00.into());
    })
    .await;
    let bus = format!("doip:{}", gateway.addresses().tcp);
    for json in [false, true] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_connector-agent"));
        command.args(["vin", "--budget-ms", "5000", "--bus", &bus]).args(json.then_some("--json"));
        let output = tokio::time::timeout(LONG, command.output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(3));
        let text = String::from_utf8(if json { output.stderr } else { output.stdout }).unwrap();
        assert!(text.contains("denied: unknown source address (0x00)") && text.contains("0x4010"), "{text}");
    }
}

/// The exit status and output of `connector-agent scan` for a DoIP bus.
async fn scan(bus: &str) -> (Option<i32>, serde_json::Value) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_connector-agent"));
    command.args(["scan", "--json", "--config", "/nowhere", "--bus", bus]);
    let output = tokio::time::timeout(LONG, command.output()).await.unwrap().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[tokio::test]
async fn the_command_scans_behind_a_gateway_and_finds_every_ecu_and_no_other() {
    let gateway = gateway(|_| {}).await;
    let bus = format!("doip:{}", gateway.addresses().tcp);
    let (status, report) = scan(&bus).await;
    let address = |ecu: &serde_json::Value| {
        assert_eq!((&ecu["gateway_id"], &ecu["protocol"]), (&GATEWAY.get().into(), &"doip".into()));
        assert_eq!(ecu["request_id"], ecu["response_id"]);
        ecu["request_id"].as_u64().unwrap()
    };
    let found: Vec<u64> = report["ecus"].as_array().unwrap().iter().map(address).collect();
    let expected: Vec<u64> = gateway.ecus().iter().map(|ecu| ecu.address.get().into()).collect();
    assert_eq!(found, expected, "{report}");
    assert_eq!((status, &report["outcome"], &report["bus_name"]), (Some(0), &"done".into(), &bus.into()));
}

#[tokio::test]
async fn the_command_scans_a_named_gateway_that_is_silent_by_udp() {
    let gateway = gateway(|config| config.listen.udp_port = Some(0)).await;
    let (status, report) = scan(&format!("doip:{}", gateway.addresses().tcp)).await;
    assert_eq!(status, Some(0), "{report}");
    assert_eq!(report["ecus"].as_array().unwrap().len(), gateway.ecus().len(), "{report}");
}

#[tokio::test]
async fn the_scan_command_reports_a_missing_gateway() {
    let unused_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (status, report) = scan(&format!("doip:{unused_address}")).await;
    assert_eq!((status, &report["outcome"]), (Some(4), &"no-node".into()), "{report}");
    let (status, _) = scan("doip:not/a/name").await;
    assert_eq!(status, Some(1));
}

#[tokio::test]
async fn an_announced_vin_is_reported_with_the_gateways_address() {
    let report = read_vin(&gateway(|_| {}).await).await;
    assert_eq!(report.vin, golf().record.vin);
    assert_eq!((report.source, report.address), (Some(VinSource::Doip), Some(GATEWAY.into())));
}

#[tokio::test]
async fn a_gateway_that_announces_no_vin_is_asked_for_one() {
    let report = read_vin(&gateway(GatewayConfig::forget_vin).await).await;
    assert_eq!(report.vin, golf().record.vin);
    assert_eq!((report.source, report.address), (Some(VinSource::Doip), Some(GATEWAY.into())));
}

#[tokio::test]
async fn without_a_gateway_there_is_no_vin_after_the_budget_and_no_error() {
    let unused_address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hardware = hardware(unused_address, DoipConfig::default());
    let settings = VinSettings { budget: Duration::from_millis(100), ..VinSettings::default() };
    let reading =
        read_can_and_doip(Vec::new(), networks_to_read(&hardware, settings.budget), &settings).await;
    assert_eq!(reading.report.vin, None);
}

#[tokio::test]
async fn status_and_power_mode_are_reported_on_request() {
    let gateway = gateway(|_| {}).await;
    let address = gateway.addresses().tcp;
    let mut explorer = Explorer::new(network(address, DoipTlsConfig::default()).await);
    let now = Instant::now();
    explorer.ask_all(now, Question::Anybody);
    let mut asked = false;
    let exchange = async {
        loop {
            match poll_fn(|cx| explorer.poll(cx)).await.unwrap() {
                DiscoveryEvent::Found(found) if !asked => {
                    asked = true;
                    assert_eq!((found.address, found.announcement.address), (address, GATEWAY));
                    explorer.ask(Instant::now(), Question::EntityStatus, address);
                    explorer.ask(Instant::now(), Question::PowerMode, address);
                }
                DiscoveryEvent::Changed(gateway) => {
                    if let (Some(status), Some(mode)) = (gateway.status, gateway.power_mode) {
                        return (status, mode);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let (status, mode) = tokio::time::timeout(LONG, exchange).await.unwrap();
    assert_eq!((status.node_type, mode), (NodeType::Gateway, PowerMode::Ready));
    assert_eq!(status.max_data_size, Some(0x0010_0000));
}

#[tokio::test]
async fn a_refusal_is_reported_with_the_gateways_code() {
    for code in [0x00, 0x01, 0x04, 0x05, 0x06] {
        let gateway = gateway(|config| config.entity.activation.answer = Answer::Always(code.into())).await;
        let error = activate(gateway.addresses().tcp, DoipTlsConfig::default(), false).await.unwrap_err();
        assert!(error.to_string().contains(&format!("(0x{code:02X})")), "{error}");
    }
}

/// A gateway that requires TLS, and the configuration with its TLS port and a file of its certificate.
async fn tls_gateway() -> (DoipGateway, DoipTlsConfig, tempfile::TempDir) {
    let tls = EntityTls::self_signed(&["gateway.example".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, &tls.certificate).unwrap();
    let gateway = gateway(|config| {
        config.listen.tls = Some((0, tls.config.clone()));
        config.entity.activation.tls_required = true;
    })
    .await;
    let port = gateway.addresses().tls.unwrap().port();
    (gateway, DoipTlsConfig { port, ca_file: Some(ca_file), ..DoipTlsConfig::default() }, directory)
}

#[tokio::test]
async fn a_gateway_that_requires_tls_gets_it_with_any_certificate_name() {
    let (gateway, tls, _directory) = tls_gateway().await;
    for by_tls in [false, true] {
        activate(gateway.addresses().tcp, tls.clone(), by_tls).await.unwrap();
    }
}

#[tokio::test]
async fn an_untrusted_certificate_is_refused_unless_any_is_trusted() {
    let (gateway, tls, _directory) = tls_gateway().await;
    let (_other, others, _other_directory) = tls_gateway().await;
    let address = gateway.addresses().tcp;
    let wrong = DoipTlsConfig { port: tls.port, ..others };
    let error = activate(address, wrong, false).await.unwrap_err();
    assert!(
        error.to_string().contains("no TLS with") && error.to_string().contains("certificate"),
        "{error}"
    );
    let any = DoipTlsConfig { ca_file: None, trust_any: true, ..tls };
    activate(address, any, false).await.unwrap();
}

#[tokio::test]
async fn without_a_trusted_certificate_the_tls_error_names_the_setting() {
    let (gateway, tls, _directory) = tls_gateway().await;
    let without_trust = DoipTlsConfig { ca_file: None, ..tls };
    let error = activate(gateway.addresses().tcp, without_trust, false).await.unwrap_err();
    assert!(error.to_string().contains("doip.tls.ca_file"), "{error}");
    assert!(!error.may_pass());
}

/// A gateway that passes its first connection to `act`.
async fn hostile<F: Future<Output = ()> + Send + 'static>(
    act: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        act(stream).await;
    });
    address
}

/// A gateway that does not identify itself. It answers requests for the VIN with these answers in turn, and
/// repeats the last one.
async fn scripted(answers: Vec<Vec<u8>>) -> SocketAddr {
    hostile(move |mut stream| async move {
        let mut decoder = StreamDecoder::new(4096);
        let mut answers = answers.into_iter().peekable();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            decoder.handle_bytes(&buffer[..read]);
            while let Some(Decoded::Message(message)) = decoder.poll_message().unwrap() {
                let payloads: Vec<Payload> = match message.payload {
                    Payload::ActivationRequest(_) => {
                        let (code, oem) = (0x10.into(), None);
                        vec![ActivationResponse { tester: TESTER, entity: GATEWAY, code, oem }.into()]
                    }
                    Payload::Diagnostic(request) => {
                        assert_eq!(request.data, [0x22, 0xF1, 0x90]);
                        let answer = answers.peek().unwrap().clone();
                        if answers.len() > 1 {
                            answers.next();
                        }
                        let ack =
                            DiagnosticAck { source: GATEWAY, target: TESTER, code: 0, previous: vec![] };
                        let answer = DiagnosticMessage { source: GATEWAY, target: TESTER, data: answer };
                        vec![ack.into(), answer.into()]
                    }
                    other => panic!("{other:?}"),
                };
                for payload in payloads {
                    let bytes = Message::new(ProtocolVersion::V2012, payload).encode().unwrap();
                    stream.write_all(&bytes).await.unwrap();
                }
            }
        }
    })
    .await
}

fn positive(data: &[u8]) -> Vec<u8> {
    [&[0x62, 0xF1, 0x90], data].concat()
}

#[tokio::test]
async fn a_busy_gateway_is_asked_again_and_a_padded_vin_is_a_vin() {
    let vin = golf().record.vin.unwrap();
    let busy = || vec![0x7F, 0x22, 0x21];
    for padding in [0x00, 0xFF, b' '] {
        let padded = positive(&[&[padding; 2][..], vin.as_str().as_bytes(), &[padding; 3]].concat());
        let report = read_vin_at(scripted(vec![busy(), busy(), busy(), padded]).await).await;
        assert_eq!(report.vin, Some(vin), "0x{padding:02X}");
        assert_eq!((report.source, report.address), (Some(VinSource::Doip), Some(GATEWAY.into())));
    }
}

#[tokio::test]
async fn an_answer_from_another_address_than_asked_does_not_count() {
    let vin = golf().record.vin.unwrap();
    let gateway = hostile(move |mut stream| async move {
        let mut decoder = StreamDecoder::new(4096);
        let mut buffer = [0; 4096];
        let other = LogicalAddress::new(0x4099);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            decoder.handle_bytes(&buffer[..read]);
            while let Some(Decoded::Message(message)) = decoder.poll_message().unwrap() {
                let answer = |source, vin: &[u8]| {
                    Payload::from(DiagnosticMessage { source, target: TESTER, data: positive(vin) })
                };
                let payloads = match message.payload {
                    Payload::ActivationRequest(_) => {
                        let (code, oem) = (0x10.into(), None);
                        // an answer before the question follows
                        let activated = ActivationResponse { tester: TESTER, entity: GATEWAY, code, oem };
                        vec![activated.into(), answer(GATEWAY, b"WVWZZZ1KZ6W000077")]
                    }
                    _ => vec![answer(other, b"WVWZZZ1KZ6W000099"), answer(GATEWAY, vin.as_str().as_bytes())],
                };
                let encode = |payload| Message::new(ProtocolVersion::V2012, payload).encode().unwrap();
                let bytes: Vec<u8> = payloads.into_iter().flat_map(encode).collect();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    let report = read_vin_at(gateway.await).await;
    assert_eq!((report.vin, report.address), (Some(vin), Some(GATEWAY.into())));
    assert_eq!(report.conflict, []);
}

#[tokio::test]
async fn a_busy_gateway_is_asked_within_the_budget_only() {
    let gateway = scripted(vec![vec![0x7F, 0x22, 0x21]]).await;
    let budget = Duration::from_millis(1500);
    let start = Instant::now();
    let reason = reason_for_no_vin(gateway, DoipTlsConfig::default(), budget).await;
    assert!(start.elapsed() >= budget);
    assert!(reason.contains("busy (0x21)"), "{reason}");
}

#[tokio::test]
async fn a_placeholder_is_not_a_vin_whether_announced_or_answered() {
    let answered = scripted(vec![positive(&[b'0'; 17])]).await;
    let reason = reason_for_no_vin(answered, DoipTlsConfig::default(), Duration::from_millis(1500)).await;
    assert!(reason.contains("the VIN is a placeholder"), "{reason}");
    // the agent asks the gateway instead
    let announced = gateway(|config| config.entity.announcement.vin = [b'0'; 17]).await;
    assert_eq!(read_vin(&announced).await.vin, golf().record.vin);
}

#[tokio::test]
async fn a_gateway_of_any_version_is_read_whether_it_announces_a_vin_or_not() {
    for version in [1, 2, 3, 4, 5, 0xFE] {
        for announces in [true, false] {
            let gateway = gateway(|config| {
                config.entity.version = ProtocolVersion::from(version);
                if !announces {
                    config.forget_vin();
                }
            });
            assert_eq!(read_vin(&gateway.await).await.vin, golf().record.vin, "{version} {announces}");
        }
    }
}

/// A gateway that refuses all versions but this one, and does not identify itself.
async fn strict(own: ProtocolVersion) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 15];
            stream.read_exact(&mut request).await.unwrap();
            let payload: Payload = if request[0] == u8::from(own) {
                let (code, oem) = (0x10.into(), None);
                ActivationResponse { tester: TESTER, entity: GATEWAY, code, oem }.into()
            } else {
                Payload::HeaderNack(HeaderNackCode::IncorrectPattern)
            };
            stream.write_all(&Message::new(own, payload).encode().unwrap()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_gateway_that_refuses_the_version_is_connected_in_its_own_version() {
    for version in [2, 3, 4, 5] {
        let gateway = strict(ProtocolVersion::from(version)).await;
        activate(gateway, DoipTlsConfig::default(), false).await.unwrap();
    }
}

async fn error_of(gateway: SocketAddr) -> ClientError {
    activate(gateway, DoipTlsConfig::default(), false).await.unwrap_err()
}

#[tokio::test]
async fn hostile_gateways_cause_errors_that_name_the_fault() {
    let cases: [(&'static [u8], &str); 5] = [
        (b"\x02\xFD\x80\x01\xFF\xFF\xFF\xFF", "4294967295 bytes"),
        (b"\x00\xFF\x00\x06\x00\x00\x00\x09", "protocol version 0x00 is reserved"),
        (b"\x02\xFC\x00\x06\x00\x00\x00\x09", "not a version and its inverse"),
        (b"\x02\xFD\x00\x06\x00\x00\x00\x03", "type 0x0006 cannot have 3 bytes"),
        (b"\x02\xFD\x00\x00\x00\x00\x00\x01\x04", "invalid payload length (0x04)"),
    ];
    for (bytes, text) in cases {
        let gateway = hostile(move |mut stream| async move {
            for byte in bytes {
                stream.write_all(&[*byte]).await.unwrap();
            }
            // reads until the client has closed the connection
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let error = error_of(gateway.await).await;
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_closed_connection_is_distinguished_from_a_refusal() {
    let error = error_of(hostile(|stream| async move { drop(stream) }).await).await;
    let is_lost = matches!(
        error,
        ClientError::Connection(ConnectionError::ClosedByGateway | ConnectionError::Stream(_))
    );
    assert!(is_lost, "{error}");
}

#[tokio::test]
async fn a_flood_before_activation_does_not_prevent_its_timeout() {
    let gateway = hostile(|mut stream| async move {
        let pending = b"\x02\xFD\x00\x06\x00\x00\x00\x09\x0E\x80\x40\x10\x11\x00\x00\x00\x00".repeat(1000);
        while stream.write_all(&pending).await.is_ok() {}
    });
    let gateway = gateway.await;
    let network = network(gateway, DoipTlsConfig::default()).await;
    let confirmation_time = Duration::from_millis(100);
    let settings = ConnectionSettings { confirmation_time, ..ConnectionSettings::new(TESTER) };
    let mut client = Client::new(gateway, settings, false);
    let first = poll_fn(|cx| client.poll(cx, network.as_ref())).await;
    assert!(matches!(first, ClientEvent::ConfirmationRequired), "{first:?}");
    let error = outcome(network.as_ref(), &mut client).await.unwrap_err();
    assert!(error.to_string().contains("was not confirmed"), "{error}");
}

fn recording() -> DoipRecording {
    DoipRecording::parse(DOIP_LOG).unwrap()
}

#[test]
fn recorded_datagrams_of_a_real_gateway_are_understood() {
    let mut discovery = Discovery::new();
    let from = SocketAddr::from(([169, 254, 1, 1], 13400));
    let mut refused = Vec::new();
    let recording = recording();
    for record in recording.records().iter().filter(|record| record.carrier == Carrier::Udp) {
        if record.speaker != Speaker::Tester {
            discovery.handle_datagram(from, &record.bytes);
        }
        while let Some(event) = discovery.poll_event() {
            if let DiscoveryEvent::Refused { code, .. } = event {
                refused.push(code);
            }
        }
    }
    let [gateway] = discovery.gateways() else { panic!("{:?}", discovery.gateways()) };
    assert_eq!(gateway.announcement.address, LogicalAddress::new(0x4010));
    assert_eq!(gateway.announcement.vin().unwrap().as_str(), "BAUNEE4MZ17042403");
    assert_eq!(gateway.announcement.sync_status, None, "the gateway implements the edition of 2012");
    let status = gateway.status.unwrap();
    assert_eq!((status.node_type, status.max_sockets, status.open_sockets), (NodeType::Gateway, 1, 0));
    assert_eq!(status.max_data_size, Some(0x0FFF));
    assert_eq!(gateway.power_mode, Some(PowerMode::from(0x00)));
    assert_eq!(refused, [HeaderNackCode::UnknownPayloadType; 2]);
}

#[test]
fn the_recorded_tcp_stream_of_a_real_gateway_is_understood() {
    let recording = recording();
    let records = recording.records();
    let mut ports: Vec<u16> = records.iter().map(|record| record.tester_port).collect();
    ports.sort_unstable();
    ports.dedup();
    let (mut activated, mut responses, mut alive) = (0, Vec::new(), 0);
    for port in ports {
        let mut connection: Option<Connection> = None;
        let start = Instant::now();
        for record in records.iter().filter(|record| record.tester_port == port) {
            let is_tcp = record.carrier == Carrier::Tcp;
            let now = start + record.at;
            match (&mut connection, record.speaker) {
                _ if !is_tcp => {}
                (None, Speaker::Tester) => {
                    connection = Some(Connection::new(ConnectionSettings::new(TESTER), now));
                }
                (Some(connection), Speaker::Tester) => while connection.poll_transmit(now).is_some() {},
                (Some(connection), _) => connection.handle_bytes(now, &record.bytes),
                (None, _) => {}
            }
            let Some(connection) = &mut connection else { continue };
            while let Some(event) = connection.poll_event() {
                match event {
                    Event::Activated { entity, .. } => {
                        assert_eq!(entity, LogicalAddress::new(0x4010));
                        activated += 1;
                    }
                    Event::Received { data, .. } => responses.push(data),
                    other => panic!("{other:?}"),
                }
            }
            alive += usize::from(record.speaker == Speaker::Vehicle && record.bytes[2..4] == [0x00, 0x07]);
        }
    }
    assert!(activated >= 6, "{activated}");
    assert!(alive > 0);
    let session = vec![0x50, 0x03, 0x00, 0x32, 0x01, 0xF4];
    assert!(responses.contains(&session) && responses.contains(&vec![0x7F, 0x10, 0x78]), "{responses:?}");
}
