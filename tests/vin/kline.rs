//! The VIN by K-line: from simulated ECUs in virtual time, and by the agent's command line over a
//! pseudo-terminal.

mod answers;
mod in_use;

use std::task::{Context, Poll};
use std::time::Duration;

use connector_agent::config::{DEFAULT_KLINE_BUDGET, KLINE_VIN_BIT_RATES};
use connector_agent::vehicle::vin::kline::{LineReading, LineToAsk, read, read_line};
use connector_agent::vehicle::vin::{EcuAddress, VinSource};
use connector_hal::kline::sim::{LineNode, PtyKLine, SimLine};
use connector_hal::kline::{self, KLine, KLineError, KLineEvent, Signal};
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::kline::{KlineEcuConfig, KlineVehicle, Misbehaviour};

const VIN: &str = "WVWZZZ1KZ6W000001";
const CLOCK: TimerKind = TimerKind::Runtime;

fn ecu(address: u8) -> KlineEcuConfig {
    // the runtime's clock has a resolution of a millisecond
    KlineEcuConfig { tolerance: Duration::from_millis(3), ..KlineEcuConfig::new(address) }
}

fn line_to_ask(line: impl KLine + 'static) -> LineToAsk {
    LineToAsk { line: Box::new(line), bit_rates: KLINE_VIN_BIT_RATES.to_vec() }
}

async fn read_from(ecus: &[KlineEcuConfig], budget: Duration) -> (LineReading, KlineVehicle, Duration) {
    let line = SimLine::new(CLOCK);
    let vehicle = KlineVehicle::start(ecus, &line, CLOCK);
    let start = CLOCK.now();
    let reading = read_line(line_to_ask(line.attach("kline0", 9_600)), budget, CLOCK).await;
    let elapsed = CLOCK.now() - start;
    // the ECU still answers the last request
    tokio::time::sleep(Duration::from_secs(1)).await;
    (reading, vehicle, elapsed)
}

#[tokio::test(start_paused = true)]
async fn an_ecu_with_the_obd_function_sends_its_vin_within_a_second() {
    let (reading, vehicle, elapsed) = read_from(&[ecu(0x11)], DEFAULT_KLINE_BUDGET).await;
    let [candidate] = reading.candidates[..] else { panic!("{:?}", reading.candidates) };
    assert_eq!(
        (candidate.vin.as_str(), candidate.source, candidate.address),
        (VIN, VinSource::Kwp, EcuAddress::Kline(0x11))
    );
    assert_eq!(candidate.address.to_string(), "0x11");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    assert_eq!(vehicle.with_ecu(0, |ecu| ecu.requests().to_vec()), Some(vec![vec![0x1A, 0x90], vec![0x82]]));
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_busy_ecu_is_asked_again_a_bounded_number_of_times() {
    let busy =
        |busy| KlineEcuConfig { misbehaviour: Misbehaviour { busy, ..Misbehaviour::default() }, ..ecu(0x11) };
    let (reading, vehicle, _) = read_from(&[busy(2)], DEFAULT_KLINE_BUDGET).await;
    assert_eq!(reading.candidates.first().map(|candidate| candidate.vin.as_str()), Some(VIN));
    let requests = vehicle.with_ecu(0, |ecu| ecu.requests().to_vec()).unwrap();
    assert_eq!(requests, [vec![0x1A, 0x90], vec![0x1A, 0x90], vec![0x1A, 0x90], vec![0x82]]);
    assert_eq!(vehicle.anomalies(), []);
    let (reading, vehicle, _) = read_from(&[busy(u32::MAX)], DEFAULT_KLINE_BUDGET).await;
    assert_eq!(reading.candidates.len(), 0);
    let requests = vehicle.with_ecu(0, |ecu| ecu.requests().to_vec()).unwrap();
    assert_eq!(
        requests,
        [vec![0x1A, 0x90], vec![0x1A, 0x90], vec![0x1A, 0x90], vec![0x09, 0x02], vec![0x82]]
    );
}

#[tokio::test(start_paused = true)]
async fn a_padded_vin_is_a_vin_and_a_placeholder_is_not() {
    let vin = |vin: &str| KlineEcuConfig { vin: Some(vin.to_owned()), ..ecu(0x11) };
    let (reading, _, _) = read_from(&[vin("   WVWZZZ1KZ6W000001  ")], DEFAULT_KLINE_BUDGET).await;
    assert_eq!(reading.candidates.first().map(|candidate| candidate.vin.as_str()), Some(VIN));
    let (reading, _, _) = read_from(&[vin("00000000000000000")], DEFAULT_KLINE_BUDGET).await;
    assert_eq!(reading.candidates.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_the_function_is_asked_by_its_address() {
    for address in [0x11, 0x10] {
        let alone = KlineEcuConfig { functions: Vec::new(), slow: false, ..ecu(address) };
        let (reading, vehicle, elapsed) = read_from(&[alone], DEFAULT_KLINE_BUDGET).await;
        assert_eq!(reading.candidates.len(), 1, "0x{address:02X}");
        assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ecu_with_slow_initialisation_only_is_read_within_the_budget() {
    let (reading, vehicle, elapsed) =
        read_from(&[KlineEcuConfig { fast: false, ..ecu(0x10) }], DEFAULT_KLINE_BUDGET).await;
    assert_eq!(reading.candidates.len(), 1);
    assert!(elapsed < DEFAULT_KLINE_BUDGET, "{elapsed:?}");
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn an_ecu_is_read_at_every_bit_rate_with_every_initialisation() {
    let mut table = Vec::new();
    for bit_rate in KLINE_VIN_BIT_RATES {
        for (fast, slow) in [(true, true), (true, false), (false, true)] {
            let (reading, vehicle, elapsed) =
                read_from(&[KlineEcuConfig { bit_rate, fast, slow, ..ecu(0x11) }], DEFAULT_KLINE_BUDGET)
                    .await;
            assert_eq!(reading.candidates.len(), 1, "{bit_rate} bit/s, fast {fast}, slow {slow}");
            assert_eq!(vehicle.anomalies(), [], "{bit_rate} bit/s, fast {fast}, slow {slow}");
            let limit = if slow { 10 } else { 6 };
            assert!(elapsed < Duration::from_secs(limit), "{bit_rate} bit/s: {elapsed:?}");
            table.push((bit_rate, fast, slow, elapsed));
        }
    }
    println!("{table:#?}");
}

#[tokio::test(start_paused = true)]
async fn only_configured_bit_rates_that_the_line_supports_are_tried() {
    let line = SimLine::new(CLOCK);
    let vehicle = KlineVehicle::start(&[KlineEcuConfig { bit_rate: 9_600, ..ecu(0x11) }], &line, CLOCK);
    let reading = |bit_rates: &[u32], able: &'static [u32]| {
        let line = Choosy { line: line.attach("kline0", 9_600), able };
        read_line(
            LineToAsk { line: Box::new(line), bit_rates: bit_rates.to_vec() },
            DEFAULT_KLINE_BUDGET,
            CLOCK,
        )
    };
    let all = &KLINE_VIN_BIT_RATES;
    assert_eq!(reading(&[9_600], all).await.candidates.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(reading(&[15_625], all).await.candidates.len(), 0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let line_reading = reading(all, &[9_600]).await;
    assert!(line_reading.candidates.len() == 1 && line_reading.error.is_none());
    let cannot = reading(all, &[1_200]).await;
    assert!(matches!(cannot.error, Some(KLineError::Unsupported { .. })));
    assert_eq!(vehicle.anomalies(), []);
}

/// An interface that supports some bit rates only.
struct Choosy {
    line: LineNode,
    able: &'static [u32],
}

impl KLine for Choosy {
    fn device(&self) -> &str {
        self.line.device()
    }

    fn set_bit_rate(&mut self, bit_rate: u32) -> Result<(), KLineError> {
        if self.able.contains(&bit_rate) {
            return self.line.set_bit_rate(bit_rate);
        }
        Err(KLineError::Unsupported {
            device: self.device().to_owned(),
            what: format!("send at {bit_rate} baud"),
        })
    }

    fn transmit(&mut self, signal: Signal) -> Result<(), KLineError> {
        self.line.transmit(signal)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<KLineEvent, KLineError>> {
        self.line.poll_event(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_line_or_ecu_ends_the_reading_without_a_vin() {
    let (reading, _, elapsed) = read_from(&[], DEFAULT_KLINE_BUDGET).await;
    assert!(reading.candidates.is_empty() && reading.error.is_none());
    assert!(elapsed < Duration::from_secs(6), "{elapsed:?}");
    let (reading, vehicle, _) =
        read_from(&[KlineEcuConfig { vin: None, ..ecu(0x11) }], DEFAULT_KLINE_BUDGET).await;
    assert!(reading.candidates.is_empty());
    // both requests were sent, and the communication was stopped
    let requests = vehicle.with_ecu(0, |ecu| ecu.requests().to_vec()).unwrap();
    assert_eq!(requests, [[0x1A, 0x90].to_vec(), vec![0x09, 0x02], vec![0x82]]);
    let silent = Misbehaviour { is_silent: true, ..Misbehaviour::default() };
    let (reading, _, elapsed) =
        read_from(&[KlineEcuConfig { misbehaviour: silent, ..ecu(0x11) }], DEFAULT_KLINE_BUDGET).await;
    assert!(reading.candidates.is_empty());
    assert!(elapsed <= DEFAULT_KLINE_BUDGET, "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_kept() {
    let budget = Duration::from_millis(400);
    let (reading, _, elapsed) = read_from(&[ecu(0x11)], budget).await;
    assert!(reading.candidates.is_empty());
    assert!(elapsed <= budget + Duration::from_millis(2), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_includes_the_time_of_can_and_ends_with_the_first_vin() {
    let (empty, full) = (SimLine::new(CLOCK), SimLine::new(CLOCK));
    let _vehicle = KlineVehicle::start(&[ecu(0x11)], &full, CLOCK);
    let attach = |line: &SimLine, name: &str| line_to_ask(line.attach(name, 10_400));
    let lines = vec![attach(&empty, "kline0"), attach(&full, "kline1"), attach(&empty, "kline2")];
    let before = Duration::from_millis(287);
    let (report, readings) = read(lines, DEFAULT_KLINE_BUDGET, before, CLOCK).await.unwrap();
    assert_eq!(readings.len(), 2);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        (&json["vin_number"], &json["source"], &json["address"]),
        (&VIN.into(), &"kwp".into(), &"0x11".into())
    );
    assert!(report.elapsed > before);
    assert!(read(Vec::new(), DEFAULT_KLINE_BUDGET, before, CLOCK).await.is_none());
}

/// A pseudo-terminal needs real time. The test does not check how late the answers are.
#[tokio::test]
async fn a_serial_device_carries_both_initialisations_echoes_and_answers() {
    for (fast, slow) in [(true, false), (false, true)] {
        let line = SimLine::new(TimerKind::Precise);
        let tolerant_ecu =
            KlineEcuConfig { fast, slow, tolerance: Duration::from_secs(2), ..KlineEcuConfig::new(0x11) };
        let vehicle = KlineVehicle::start(&[tolerant_ecu], &line, TimerKind::Precise);
        let pty = PtyKLine::new(None, &line).unwrap();
        let mut candidates = Vec::new();
        // a busy machine may miss an answer
        for _ in 0..5 {
            let line = kline::open(pty.device().to_str().unwrap()).unwrap();
            let asked = LineToAsk { line, bit_rates: KLINE_VIN_BIT_RATES.to_vec() };
            candidates = read_line(asked, Duration::from_secs(20), TimerKind::Precise).await.candidates;
            if !candidates.is_empty() {
                break;
            }
        }
        assert_eq!(
            candidates.first().map(|candidate| candidate.vin.as_str()),
            Some(VIN),
            "fast {fast}, slow {slow}"
        );
        assert_eq!(vehicle.with_ecu(0, |ecu| ecu.requests().contains(&vec![0x1A, 0x90])), Some(true));
    }
}
