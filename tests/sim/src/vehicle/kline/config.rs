//! The configuration of a simulated K-line ECU.

use std::time::Duration;

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
    /// The ECU's faults.
    pub misbehaviour: Misbehaviour,
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
    /// The ECU confirms another address.
    pub confirms_wrong_address: bool,
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
            vin: Some("WVWZZZ1KZ6W000001".to_owned()),
            erase_time: Duration::from_secs(2),
            pending_interval: Duration::from_millis(800),
            misbehaviour: Misbehaviour::default(),
        }
    }
}
