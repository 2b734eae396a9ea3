//! Replays the recorded flash of a real ECU. The tool's requests pass through the relay, and the simulated
//! ECU has the recorded timing. The networks are with and without delay and cut links.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use connector_agent::relay::wire::request::{IsotpChannelConfig, ResponderConfig, ResponderPair};
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBus as _, CanBusExt as _, CanEvent, CanFrame, CanSettings};
use connector_hal::timer::TimerKind;
use connector_operator::client::{Channel, CloseReason, Item};
use connector_sim::network::{BadNetwork, BadNetworkConfig};
use connector_sim::vehicle::ecu::Target;
use connector_sim::vehicle::recording::{Recording, ToolStep};
use connector_sim::vehicle::{Vehicle, candump};
use connector_test_support::agent::{AgentSettings, Connector, Sandbox, TestAgent, bus};
use connector_test_support::config::{configure, functional};
use connector_test_support::data::FLASH_LOG;
use connector_test_support::id;
use connector_test_support::soon;
use tokio::time::{Instant, sleep_until};

const REQUEST: u32 = 0x710;
const RESPONSE: u32 = 0x71A;
const FUNCTIONAL: u32 = 0x700;
const OTHER_RESPONSE: u32 = 0x71D;
const OTHER_ECU: ResponderPair = ResponderPair {
    response_id: OTHER_RESPONSE,
    request_id: 0x713,
    extended_request_address: None,
    extended_response_address: None,
};
/// The padding of the recorded tool.
const PADDING: u8 = 0x55;

/// The links to the cloud that the test cuts.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Links {
    Stay,
    ConnectorsCut,
    OperatorsCut,
    /// A gateway in front of the cloud closes the links of both.
    Limited,
}

/// A place to cut the link: a frame and the number of equal frames before it, so that the cut falls
/// between this frame and the next event.
struct Cut {
    id: u32,
    data: &'static [u8],
    nth: usize,
    /// The number of later frames with the same identifier.
    later: usize,
}

const CUTS: [Cut; 5] = [
    // in the middle of the first block of the download
    Cut { id: REQUEST, data: &[0x11, 0x02, 0x36, 0x01], nth: 0, later: 15 },
    // in the middle of the second check
    Cut { id: REQUEST, data: &[0x10, 0x84, 0x31, 0x01, 0x02, 0x02], nth: 1, later: 3 },
    // the erase is pending: the ECU's first and third answer "response pending"
    Cut { id: RESPONSE, data: &[0x03, 0x7F, 0x31, 0x78], nth: 0, later: 0 },
    Cut { id: RESPONSE, data: &[0x03, 0x7F, 0x31, 0x78], nth: 2, later: 0 },
    // the memory is erased, and the answer is being sent
    Cut { id: RESPONSE, data: &[0x05, 0x71, 0x01, 0xFF, 0x00], nth: 1, later: 0 },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_flash_succeeds_over_any_network() {
    let _alone = crate::BUSY.lock().await;
    let recording = Arc::new(Recording::new(candump::parse(FLASH_LOG).unwrap()).unwrap());
    let runs = [0, 50, 300].into_iter().flat_map(|rtt| [(rtt, Links::Stay), (rtt, Links::ConnectorsCut)]);
    let runs: Vec<_> = runs.chain([(50, Links::OperatorsCut)]).collect();
    let sandbox = Arc::new(Sandbox::start(runs.len()).await);
    let tasks: Vec<_> = runs
        .into_iter()
        .zip(sandbox.connectors.clone())
        .map(|((rtt, links), connector)| {
            let (sandbox, recording) = (Arc::clone(&sandbox), Arc::clone(&recording));
            let round_trip = Duration::from_millis(rtt);
            let flash = async move { flash(&sandbox, &connector, &recording, round_trip, links).await };
            (format!("{rtt} ms, {links:?}"), tokio::spawn(flash))
        })
        .collect();
    let mut failures = Vec::new();
    for (name, task) in tasks {
        if let Err(failure) = task.await.unwrap() {
            failures.push(format!("{name}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_flash_survives_the_idle_limit_and_the_forced_close_of_a_gateway() {
    let _alone = crate::BUSY.lock().await;
    let recording = Arc::new(Recording::new(candump::parse(FLASH_LOG).unwrap()).unwrap());
    // the recording takes 20 s, and has silences of 2 s
    let (lifetime, idle) = (Some(Duration::from_secs(6)), Some(Duration::from_millis(1800)));
    let mut tasks = tokio::task::JoinSet::new();
    for (lifetime, idle) in [(lifetime, None), (None, idle), (lifetime, idle)] {
        let recording = Arc::clone(&recording);
        tasks.spawn(async move {
            let sandbox = Sandbox::start_with(1, |config| {
                (config.socket_lifetime, config.socket_idle) = (lifetime, idle);
            })
            .await;
            let connector = sandbox.connectors[0].clone();
            let flashed = flash(&sandbox, &connector, &recording, Duration::ZERO, Links::Limited).await;
            flashed.map_err(|failure| format!("{lifetime:?}, {idle:?}: {failure}"))
        });
    }
    let failures: Vec<_> = tasks.join_all().await.into_iter().filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn flash(
    sandbox: &Sandbox,
    connector: &Connector,
    recording: &Recording,
    round_trip: Duration,
    links: Links,
) -> Result<(), String> {
    let bad = BadNetworkConfig { round_trip, ..BadNetworkConfig::default() };
    let network = Arc::new(BadNetwork::start(sandbox.cloud.address, bad).await.unwrap());
    let bus = bus();
    let vehicle = Vehicle::play(recording, &bus, TimerKind::Precise);
    let (between_agent, between_operator) = match links {
        Links::Stay | Links::ConnectorsCut => (network.address(), sandbox.cloud.address),
        Links::OperatorsCut => (sandbox.cloud.address, network.address()),
        Links::Limited => (sandbox.cloud.address, sandbox.cloud.address),
    };
    let settings = AgentSettings { through: Some(between_agent), ..AgentSettings::default() };
    let agent = TestAgent::start(sandbox, connector, &bus, settings);
    sandbox.portal(connector).await.sees_online().await;
    let ticket = sandbox.ticket(connector, None).await;
    let operator = sandbox.operator_through(between_operator).await;
    let joined = soon("the connection", operator.connect(ticket.connection().unwrap())).await;
    let connection = joined.map_err(|error| error.to_string())?;
    configure(&connection).await;
    let config = IsotpChannelConfig { padding_byte: Some(PADDING), ..functional(REQUEST) };
    let config = IsotpChannelConfig { response_id: Some(RESPONSE), ..config };
    let one = soon("the channel", connection.open_isotp(config)).await.unwrap();
    let config = IsotpChannelConfig { padding_byte: Some(PADDING), ..functional(FUNCTIONAL) };
    let config = IsotpChannelConfig { response_ids: vec![ResponderConfig::Pair(OTHER_ECU)], ..config };
    let all = soon("the channel", connection.open_isotp(config)).await.unwrap();

    let cuts = if matches!(links, Links::Stay | Links::Limited) { &[] } else { &CUTS[..] };
    let recorder = Recorder::start(&bus, cuts, Arc::clone(&network)).await;
    let steps = |target| recording.tool_steps().iter().filter(move |step| step.target == target);
    let physical: Vec<_> = steps(Target::Physical).collect();
    let functional: Vec<_> = steps(Target::Functional).collect();
    let origin = Instant::now();
    tokio::try_join!(ask_one(&one, &physical), ask_functional(&all, &functional, origin))?;

    let counters = connection.counters();
    let interruptions = match links {
        Links::OperatorsCut => counters.links_lost(),
        Links::Stay | Links::ConnectorsCut | Links::Limited => counters.interruptions(),
    };
    sandbox.operator.complete(&ticket.id).await.map_err(|error| error.to_string())?;
    for (name, channel) in [("the ECU's", &one), ("the functional", &all)] {
        match soon("the end", channel.recv()).await {
            Err(CloseReason::Remote(reason)) if reason == "closed" => {}
            other => return Err(format!("after the recording, on {name} channel: {other:02X?}")),
        }
    }
    if links == Links::Limited {
        if interruptions == 0 || counters.links_lost() == 0 {
            return Err(format!("{interruptions} interruptions, {} links lost", counters.links_lost()));
        }
    } else if interruptions != cuts.len() as u64 {
        return Err(format!("{interruptions} interruptions by {} cuts", cuts.len()));
    }
    // the request comes after the end of the connection, and so its answer does too
    sandbox.identify(connector).await;
    agent.shut_down().await;
    recorder.check(recording)?;
    check_vehicle(&vehicle, recording)
}

/// Sends the requests of the recorded tool. Each recorded pause begins at the end of the previous step.
async fn ask_one(channel: &Channel, steps: &[&ToolStep]) -> Result<(), String> {
    let mut before = Duration::ZERO;
    for step in steps {
        // the recorded pauses are input of the test, and do not wait for an event
        tokio::time::sleep(step.start.saturating_sub(before)).await;
        before = step.answers.last().map_or(step.end, |answer| step.end + answer.delay);
        let wrong = |text: String| format!("{:02X?}: {text}", step.pdu);
        send(channel, &step.pdu).await.map_err(wrong)?;
        expect_sent(channel).await.map_err(wrong)?;
        for answer in &step.answers {
            let (address, data) = expect_pdu(channel).await.map_err(wrong)?;
            if address != answer.response_id.to_number() || data != answer.pdu {
                return Err(wrong(format!("0x{address:X} {data:02X?} instead of {answer:02X?}")));
            }
        }
    }
    Ok(())
}

/// Sends functional requests at their recorded times, independent of the answers to earlier ones.
async fn ask_functional(channel: &Channel, steps: &[&ToolStep], origin: Instant) -> Result<(), String> {
    let asking = async {
        for step in steps {
            sleep_until(origin + step.start).await;
            send(channel, &step.pdu).await?;
        }
        Ok(())
    };
    let listening = async {
        let (mut sent, mut answers) = (0, Vec::new());
        let recorded: Vec<_> = steps.iter().flat_map(|step| &step.answers).collect();
        while sent < steps.len() || answers.len() < recorded.len() {
            match soon("a functional answer", channel.recv()).await.map_err(|error| error.to_string())?.item {
                Item::Event { code: EventCode::Sent, .. } => sent += 1,
                Item::Pdu { address, data } => answers.push((address, data)),
                other => return Err(format!("functional: {other:02X?}")),
            }
        }
        let recorded =
            recorded.into_iter().map(|answer| (answer.response_id.to_number(), answer.pdu.clone()));
        if answers.iter().cloned().eq(recorded) { Ok(()) } else { Err(format!("functional: {answers:02X?}")) }
    };
    tokio::try_join!(asking, listening).map(drop)
}

async fn send(channel: &Channel, pdu: &[u8]) -> Result<(), String> {
    let flags = PduFlags { chained: false, confirm: true };
    channel.send(pdu, flags).await.map_err(|error| error.to_string())
}

async fn expect_sent(channel: &Channel) -> Result<(), String> {
    match soon("the confirmation", channel.recv()).await.map_err(|error| error.to_string())?.item {
        Item::Event { code: EventCode::Sent, .. } => Ok(()),
        other => Err(format!("{other:02X?}")),
    }
}

async fn expect_pdu(channel: &Channel) -> Result<(u32, Vec<u8>), String> {
    match soon("an answer", channel.recv()).await.map_err(|error| error.to_string())?.item {
        Item::Pdu { address, data } => Ok((address, data)),
        other => Err(format!("{other:02X?}")),
    }
}

/// Checks that the ECUs detected no anomaly, and received each request once.
fn check_vehicle(vehicle: &Vehicle, recording: &Recording) -> Result<(), String> {
    if !vehicle.anomalies().is_empty() {
        return Err(format!("the ECUs saw {:?}", vehicle.anomalies()));
    }
    let asked = |target| recording.tool_steps().iter().filter(|step| step.target == target).count() as u64;
    for ecu in vehicle.ecus() {
        let status = ecu.status.borrow().clone();
        let script = status.script.ok_or("no script")?;
        let is_flashed = ecu.address.request == id(REQUEST);
        let due = asked(Target::Functional) + if is_flashed { asked(Target::Physical) } else { 0 };
        if script.played != script.total || status.requests != due {
            return Err(format!(
                "{}: {script:?}, {} requests instead of {due}",
                ecu.address, status.requests
            ));
        }
    }
    Ok(())
}

/// Receives every frame on the bus, and cuts the network at the given places.
struct Recorder {
    frames: Arc<Mutex<Vec<CanFrame>>>,
}

impl Recorder {
    async fn start(bus: &VirtualBus, cuts: &'static [Cut], network: Arc<BadNetwork>) -> Self {
        let mut node = bus.attach_adapter("recorder", VirtualBus::full_capabilities());
        let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: true };
        node.configure(settings).await.unwrap();
        let frames = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&frames);
        tokio::spawn(async move {
            while let Ok(event) = node.event().await {
                if let CanEvent::Received { frame, .. } = event {
                    let mut heard = heard.lock().unwrap();
                    heard.push(frame);
                    if cuts.iter().any(|cut| cut.is_now(&heard)) {
                        network.cut();
                    }
                }
            }
        });
        Self { frames }
    }

    /// Checks that each identifier's frames, including padding, are those of the recording, in the same
    /// order.
    fn check(&self, recording: &Recording) -> Result<(), String> {
        let frames = self.frames.lock().unwrap();
        for of in [REQUEST, RESPONSE, FUNCTIONAL, OTHER_RESPONSE] {
            let heard: Vec<_> = frames.iter().filter(|frame| frame.id() == id(of)).collect();
            let recorded = recording.records().iter().map(|record| &record.frame);
            let recorded: Vec<_> = recorded.filter(|frame| frame.id() == id(of)).collect();
            if let Some(index) =
                (0..heard.len().max(recorded.len())).find(|i| heard.get(*i) != recorded.get(*i))
            {
                let (heard, recorded) = (heard.get(index), recorded.get(index));
                return Err(format!("frame {index} of 0x{of:X} is {heard:?} instead of {recorded:?}"));
            }
        }
        Ok(())
    }
}

impl Cut {
    /// Whether the last frame is the place of this cut.
    fn is_now(&self, frames: &[CanFrame]) -> bool {
        let own: Vec<_> = frames.iter().filter(|frame| frame.id() == id(self.id)).collect();
        let first =
            own.iter().enumerate().filter(|(_, frame)| frame.data().starts_with(self.data)).nth(self.nth);
        frames.last().is_some_and(|last| last.id() == id(self.id))
            && first.is_some_and(|(index, _)| index + self.later + 1 == own.len())
    }
}
