//! What a simulated K-line ECU is like.

use std::time::Duration;

/// A K-line ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KlineEcuConfig {
    /// Its address, which is its 5-baud address too.
    pub address: u8,
    /// The functions that it has.
    pub functions: Vec<u8>,
    /// Whether a pulse wakes it.
    pub fast: bool,
    /// Whether its address, or that of a function, wakes it.
    pub slow: bool,
    /// Key byte 1 and key byte 2.
    pub key_bytes: [u8; 2],
    /// In bit/s.
    pub bit_rate: u32,
    /// P1: the pause between two bytes.
    pub p1: Duration,
    /// P2: the pause before an answer.
    pub p2: Duration,
    /// P3max: how long it waits for a request.
    pub p3_max: Duration,
    /// How far the tester's times may be off: none on a simulated clock, more where a scheduler is in between.
    pub tolerance: Duration,
    /// What it answers to `1A 90`; `None`: a negative response.
    pub vin: Option<String>,
    /// How long it takes to erase its memory; it says response pending meanwhile.
    pub erase_time: Duration,
    /// How often it says so.
    pub pending_interval: Duration,
    /// What it does wrong.
    pub misbehaviour: Misbehaviour,
}

/// What an ECU does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Misbehaviour {
    /// It answers nothing at all.
    pub is_silent: bool,
    /// It ignores so many initialisations.
    pub deaf_to: u32,
    /// Its synchronisation byte, if not 0x55.
    pub synchronisation: Option<u8>,
    /// It confirms another address.
    pub confirms_wrong_address: bool,
    /// It refuses StartCommunication with this code.
    pub refuses_with: Option<u8>,
    /// The checksum of so many answers is wrong.
    pub wrong_checksums: u32,
    /// The number of requests that it answers with busyRepeatRequest (`7F xx 21`).
    pub busy: u32,
    /// It stops in the middle of so many answers.
    pub truncated: u32,
    /// It forgets the communication after so many requests.
    pub forgets_after: Option<u32>,
}

impl KlineEcuConfig {
    /// An ECU with everything right, woken either way: `0x8FEF`, every kind of header, at 10400 baud.
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
