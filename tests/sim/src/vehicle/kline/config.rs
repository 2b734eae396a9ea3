//! The configuration of a simulated K-line ECU.

use std::time::Duration;

/// The VIN that ECUs of a K-line report by default.
pub const DEFAULT_VIN: &str = "WVWZZZ1KZ6W000001";

/// A K-line ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KlineEcuConfig {
    /// The ECU's address, which is also its 5-baud address.
    pub address: u8,
    /// The functional addresses of the ECU.
    pub functions: Vec<u8>,
    /// Whether a pulse wakes the ECU (fast initialisation).
    pub fast: bool,
    /// Whether its address, or a functional one, wakes the ECU (slow initialisation).
    pub slow: bool,
    /// Key byte 1 and key byte 2.
    pub key_bytes: [u8; 2],
    /// Bit rate, in bit/s.
    pub bit_rate: u32,
    /// P1: the pause between two bytes.
    pub p1: Duration,
    /// P2: the pause before an answer.
    pub p2: Duration,
    /// P3max: limit for the next request.
    pub p3_max: Duration,
    /// Tolerance for the tester's times: none on a simulated clock, more where processes are scheduled.
    pub tolerance: Duration,
    /// The VIN in the answer to `1A 90`; `None` for a negative response.
    pub vin: Option<String>,
    /// Time to erase the memory. The ECU sends response pending meanwhile.
    pub erase_time: Duration,
    /// Interval of the responses pending.
    pub pending_interval: Duration,
    /// Answers to requests, in place of those of the ECU's services.
    pub scripts: Vec<AnswerScript>,
    /// The ECU's faults.
    pub misbehaviour: Misbehaviour,
}

/// The answers to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerScript {
    /// The data of the request.
    pub request: Vec<u8>,
    /// The data of the answers in order, each with the delay after the answer before, not counting P2.
    pub answers: Vec<(Duration, Vec<u8>)>,
    /// The answer, counted from 0, that has a wrong checksum the first time.
    pub disturbed: Option<usize>,
}

impl AnswerScript {
    /// Answers to `request` without a delay.
    pub fn new(request: &[u8], answers: &[Vec<u8>]) -> Self {
        let answers = answers.iter().map(|answer| (Duration::ZERO, answer.clone())).collect();
        Self { request: request.to_vec(), answers, disturbed: None }
    }
}

/// Faults of an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Misbehaviour {
    /// The ECU never answers.
    pub is_silent: bool,
    /// The number of initialisations that the ECU ignores.
    pub deaf_to: u32,
    /// The ECU's synchronisation byte, if it is not 0x55.
    pub synchronisation: Option<u8>,
    /// The 5-baud address that wakes the ECU, if it is not the ECU's address in eight bits.
    pub wakes_to: Option<u8>,
    /// The byte with which the ECU confirms its 5-baud address, if it is not the address's complement.
    pub confirms_with: Option<u8>,
    /// The number of bytes after which the ECU stops to answer its 5-baud address: synchronisation byte, key byte
    /// 1, key byte 2, complement of the address.
    pub stops_after: Option<usize>,
    /// A byte of noise before each answer.
    pub noise_before: Option<u8>,
    /// A byte of noise after each answer.
    pub noise_after: Option<u8>,
    /// The code with which the ECU refuses StartCommunication.
    pub refuses_with: Option<u8>,
    /// The number of answers with a wrong checksum.
    pub wrong_checksums: u32,
    /// The number of requests that the ECU answers with busyRepeatRequest (`7F xx 21`).
    pub busy: u32,
    /// The number of answers that stop in the middle.
    pub truncated: u32,
    /// The number of requests after which the ECU ends the communication.
    pub forgets_after: Option<u32>,
}

impl KlineEcuConfig {
    /// An ECU without faults that accepts either initialisation: `0x8FEF`, every kind of header, 10400 baud.
    pub fn new(address: u8) -> Self {
        Self {
            address,
            functions: vec![0x33],
            fast: true,
            slow: true,
            key_bytes: [0xEF, 0x8F],
            bit_rate: 10_400,
            p1: Duration::from_millis(1),
            p2: Duration::from_millis(30),
            p3_max: Duration::from_secs(5),
            tolerance: Duration::ZERO,
            vin: Some(DEFAULT_VIN.to_owned()),
            erase_time: Duration::from_secs(2),
            pending_interval: Duration::from_millis(800),
            scripts: Vec::new(),
            misbehaviour: Misbehaviour::default(),
        }
    }
}
