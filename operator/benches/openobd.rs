//! `cargo bench -p connector-operator --bench openobd` compares requests through the gateway for scripts with the same
//! requests of the client library, in one run. `docs/benchmarks.md` describes the rows.
//!
//! Two connectors are each at a simulated DoIP gateway, which costs no time on a bus. The requests of the two paths
//! take turns, so that both have the same load of the machine.
#![allow(clippy::indexing_slicing, clippy::print_stdout)] // a benchmark prints its figures

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use connector_agent::relay::wire::codec::PduFlags;
use connector_operator::client::{Channel, Item};
use connector_operator::doip_entity::ListenConfig;
use connector_operator::hex;
use connector_operator::openobd::{Answers, OpenobdServer, OpenobdSettings};
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_sim::vehicle::{DoipConfig, DoipGateway, VehicleConfig};
use connector_test_support::agent::{AgentSettings, Connector, Sandbox, TestAgent, bus};
use connector_test_support::data::catalogue;
use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

const WARM_UP: usize = 200;
/// The requests of each path for each row, unless `CONNECTOR_BENCH_REQUESTS` has another number.
const REQUESTS: usize = 3000;

/// The messages of the client, as far as a request needs them.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Authenticate {
        #[prost(string, tag = "1")]
        pub client_id: String,
        #[prost(string, tag = "2")]
        pub client_secret: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Text {
        #[prost(string, tag = "1")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Empty {}

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SessionInfo {
        #[prost(string, tag = "5")]
        pub authentication_token: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DoipBus {
        #[prost(int32, tag = "1")]
        pub option: i32,
        #[prost(int32, tag = "2")]
        pub network: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct BusConfiguration {
        #[prost(string, tag = "1")]
        pub bus_name: String,
        #[prost(message, optional, tag = "5")]
        pub doip_bus: Option<DoipBus>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DoipChannel {
        #[prost(string, tag = "1")]
        pub bus_name: String,
        #[prost(uint32, tag = "2")]
        pub gateway_id: u32,
        #[prost(uint32, tag = "3")]
        pub tester_id: u32,
        #[prost(uint32, tag = "4")]
        pub ecu_id: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct DoipMessage {
        #[prost(message, optional, tag = "1")]
        pub channel: Option<DoipChannel>,
        #[prost(string, tag = "2")]
        pub payload: String,
    }
}

/// One HTTP/2 connection to the gateway.
#[derive(Clone)]
struct Http2 {
    sender: SendRequest<Body>,
    authority: String,
}

impl tower::Service<http::Request<Body>> for Http2 {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        if let Ok(uri) = format!("http://{}{path}", self.authority).parse::<Uri>() {
            *request.uri_mut() = uri;
        }
        Box::pin(self.sender.send_request(request))
    }
}

/// A client of the gateway with its token.
struct Client {
    grpc: Grpc<Http2>,
    token: String,
}

impl Client {
    async fn connect(authority: String) -> anyhow::Result<Self> {
        let tcp = TcpStream::connect(&authority).await?;
        tcp.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
        tokio::spawn(connection);
        Ok(Self { grpc: Grpc::new(Http2 { sender, authority }), token: String::new() })
    }

    fn request<M>(&self, message: M) -> anyhow::Result<Request<M>> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.token).parse()?);
        Ok(request)
    }

    async fn ask<M, R>(&mut self, path: &'static str, message: M) -> anyhow::Result<R>
    where
        M: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        self.grpc.ready().await?;
        let request = self.request(message)?;
        let codec = ProstCodec::<M, R>::default();
        Ok(self.grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    /// A session on the ticket, with the DoIP bus configured.
    async fn session(&mut self, sandbox: &Sandbox, ticket: &str) -> anyhow::Result<()> {
        let operator = &sandbox.cloud.operator;
        let login = wire::Authenticate {
            client_id: operator.client_id.clone(),
            client_secret: operator.client_secret.clone(),
        };
        let token: wire::Text =
            self.ask("/openOBD.v1.sessionController/getSessionControllerToken", login).await?;
        self.token = token.value;
        let ticket = wire::Text { value: ticket.to_owned() };
        let info: wire::SessionInfo =
            self.ask("/openOBD.v1.sessionController/startSessionOnTicket", ticket).await?;
        self.token = info.authentication_token;
        let token: wire::Text = self.ask("/openOBD.v1.session/authenticate", wire::Empty {}).await?;
        self.token = token.value;
        let bus = wire::BusConfiguration {
            bus_name: "ETH".to_owned(),
            doip_bus: Some(wire::DoipBus { option: 2, network: 3001 }),
        };
        self.grpc.ready().await?;
        let request = self.request(tokio_stream::iter([bus]))?;
        let codec = ProstCodec::<wire::BusConfiguration, wire::Empty>::default();
        let path = PathAndQuery::from_static("/openOBD.v1.config/configureBus");
        self.grpc.client_streaming(request, path, codec).await?;
        Ok(())
    }

    /// The stream of the channel to the first ECU.
    async fn stream(&mut self) -> anyhow::Result<Stream> {
        let (out, outgoing) = mpsc::channel(1);
        let channel = wire::DoipChannel {
            bus_name: "ETH".to_owned(),
            gateway_id: u32::from(GATEWAY.get()),
            tester_id: 0x0E80,
            ecu_id: u32::from(FIRST_ECU),
        };
        out.send(wire::DoipMessage { channel: Some(channel.clone()), payload: String::new() }).await?;
        self.grpc.ready().await?;
        let request = self.request(ReceiverStream::new(outgoing))?;
        let codec = ProstCodec::<wire::DoipMessage, wire::DoipMessage>::default();
        let path = PathAndQuery::from_static("/openOBD.v1.doip/openDoipStream");
        let incoming = self.grpc.streaming(request, path, codec).await?.into_inner();
        Ok(Stream { out, incoming, channel })
    }
}

struct Stream {
    out: mpsc::Sender<wire::DoipMessage>,
    incoming: Streaming<wire::DoipMessage>,
    channel: wire::DoipChannel,
}

impl Stream {
    /// Sends a request, and returns the next message.
    async fn exchange(&mut self, pdu: &str) -> anyhow::Result<String> {
        let message = wire::DoipMessage { channel: Some(self.channel.clone()), payload: pdu.to_owned() };
        self.out.send(message).await?;
        Ok(self.incoming.message().await?.context("the stream has ended")?.payload)
    }
}

/// Sends a request with the library, and returns the next PDU.
async fn exchange(channel: &Channel, pdu: &[u8]) -> anyhow::Result<Vec<u8>> {
    channel.send(pdu, PduFlags { chained: false, confirm: false }).await?;
    loop {
        let received = channel.recv().await.map_err(|reason| anyhow::anyhow!(reason.describe()))?;
        if let Item::Pdu { data, .. } = received.item {
            return Ok(data);
        }
    }
}

/// A vehicle behind DoIP, with its agent.
async fn vehicle(sandbox: &Sandbox, connector: &Connector) -> anyhow::Result<(DoipGateway, TestAgent)> {
    let record = catalogue().find("VOLKSWAGEN_GOLF_MK7")?.clone();
    let vehicle = VehicleConfig::new(record);
    let listen = ListenConfig {
        announce_to: Some("127.0.0.1:9".parse()?),
        ..ListenConfig::new("127.0.0.1:0".parse()?)
    };
    let entity = DoipGateway::start(&vehicle, DoipConfig::new(&vehicle, listen)).await?;
    let doip = Some(entity.addresses().tcp.to_string());
    let agent =
        TestAgent::start(sandbox, connector, &bus(), AgentSettings { doip, ..AgentSettings::default() });
    sandbox.portal(connector).await.sees_online().await;
    Ok((entity, agent))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn row(name: &str, times: &mut [Duration]) {
    let total: Duration = times.iter().sum();
    let a_second = times.len() as f64 / total.as_secs_f64();
    let median = median(times);
    let slow = times[times.len() * 99 / 100];
    println!("| {name} | {} µs | {} µs | {a_second:.0} |", median.as_micros(), slow.as_micros());
}

/// Prints the rows of one request, each path after the other.
async fn compare(
    name: &str,
    pdu: &[u8],
    requests: usize,
    channel: &Channel,
    stream: &mut Stream,
) -> anyhow::Result<()> {
    let text = hex::format(pdu);
    let (mut library, mut gateway) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + requests {
        let began = Instant::now();
        let answer = exchange(channel, pdu).await?;
        let between = Instant::now();
        let same = stream.exchange(&text).await?;
        let ended = Instant::now();
        anyhow::ensure!(hex::format(&answer) == same, "{same} is not {answer:02X?}");
        if number >= WARM_UP {
            library.push(between - began);
            gateway.push(ended - between);
        }
    }
    row(&format!("{name}, client library"), &mut library);
    row(&format!("{name}, gateway"), &mut gateway);
    let added = median(&mut gateway).as_secs_f64() - median(&mut library).as_secs_f64();
    println!("| {name}, added by the gateway | {:.0} µs | | |", added * 1e6);
    Ok(())
}

/// The time in which a payload of 4 KiB becomes hexadecimal text, and back.
fn text() -> anyhow::Result<()> {
    let pdu = vec![0x5A_u8; 4096];
    let (mut there, mut back) = (Vec::new(), Vec::new());
    for _ in 0..REQUESTS {
        let began = Instant::now();
        let text = std::hint::black_box(hex::format(std::hint::black_box(&pdu)));
        let between = Instant::now();
        let bytes = std::hint::black_box(hex::parse(&text)?);
        back.push(between.elapsed());
        there.push(between - began);
        anyhow::ensure!(bytes == pdu, "the text is another");
    }
    let nanos = |times: &mut [Duration]| median(times).as_nanos() as f64 / 1000.0;
    println!(
        "| 4 KiB written as text; read from text | {:.1} µs; {:.1} µs | | |",
        nanos(&mut there),
        nanos(&mut back)
    );
    Ok(())
}

async fn run(requests: usize) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(2).await;
    let [first, second] = [&sandbox.connectors[0], &sandbox.connectors[1]];
    let _vehicles = [vehicle(&sandbox, first).await?, vehicle(&sandbox, second).await?];

    let ticket = sandbox.ticket(first, None).await;
    let connection = sandbox.operator.connect(ticket.connection().context("no connection")?).await?;
    let bus = json!({"bus_name": "ETH", "doip_bus": {"doip_option": 2, "doip_network_configuration": 1}});
    connection.configure_buses(vec![serde_json::from_value(bus)?]).await?;
    let ecu =
        json!({"bus_name": "ETH", "gateway_id": GATEWAY.get(), "tester_id": 0x0E80, "ecu_id": FIRST_ECU});
    let ecu = serde_json::from_value(ecu)?;
    let channel = connection.open_channel(|open| open.doip_channel = Some(ecu)).await?;

    let settings = OpenobdSettings {
        api_url: format!("https://{}", sandbox.cloud.address),
        websocket_url: format!("wss://{}/sandbox/ws", sandbox.cloud.address),
        ca_file: Some(sandbox.cloud.ca_file.clone()),
        complete_tickets: false,
        button: false,
    };
    let server =
        OpenobdServer::bind("127.0.0.1:0".parse()?, None, settings, Some(Answers::parse("{}")?)).await?;
    let mut client = Client::connect(server.address().to_string()).await?;
    tokio::spawn(server.run(std::future::pending()));
    client.session(&sandbox, &sandbox.pending(second, None).await).await?;
    let mut stream = client.stream().await?;

    println!("| | median | 99 % | requests a second |\n|---|---|---|---|");
    compare("3E 00", &[0x3E, 0x00], requests, &channel, &mut stream).await?;
    // the ECU refuses this write, so that only the request is long
    let long: Vec<u8> = [0x2E, 0xF1, 0x99].into_iter().chain((0..4093).map(|i| i as u8)).collect();
    compare("4 KiB", &long, requests, &channel, &mut stream).await?;
    text()
}

fn main() -> anyhow::Result<()> {
    let asked = std::env::var("CONNECTOR_BENCH_REQUESTS").ok().and_then(|text| text.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(asked.unwrap_or(REQUESTS).clamp(1, REQUESTS)))
}
