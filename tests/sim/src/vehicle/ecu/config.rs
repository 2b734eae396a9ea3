//! What an ECU is like, and how long it takes for what.

use std::time::Duration;

use crate::vehicle::catalogue::{EcuRecord, Exchange};

/// How long an ECU takes for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// P2: a response, or the first response pending, comes sooner than this.
    pub p2: Duration,
    /// P2*: after a response pending, the next response comes sooner than this.
    pub p2_star: Duration,
    /// S3: how long a session lasts without a request.
    pub s3: Duration,
    /// Answering an ordinary request.
    pub processing: Duration,
    /// Erasing the memory.
    pub erase: Duration,
    /// Writing a block of a download.
    pub write: Duration,
    /// Checking a downloaded image.
    pub check: Duration,
    /// Restarting.
    pub reset: Duration,
    /// How long no seed is given after too many wrong keys.
    pub security_delay: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            p2: Duration::from_millis(50),
            p2_star: Duration::from_secs(5),
            s3: Duration::from_secs(5),
            processing: Duration::from_millis(1),
            erase: Duration::from_secs(2),
            write: Duration::from_millis(2),
            check: Duration::from_millis(200),
            reset: Duration::from_millis(300),
            security_delay: Duration::from_secs(10),
        }
    }
}

/// What kind of ECU it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcuConfig {
    /// What the real ECU answered.
    pub exchanges: Vec<Exchange>,
    /// What its made-up facts (trouble codes, seeds) are made from.
    pub identity: u64,
    /// How long it takes for what.
    pub timing: Timing,
    /// The longest TransferData request it takes, with service identifier and counter.
    pub max_block_length: u16,
    /// How many bytes all its downloaded images may have together.
    pub max_memory: usize,
}

impl EcuConfig {
    /// An ECU of a vehicle, with the usual timing.
    pub fn new(platform: &str, record: &EcuRecord) -> Self {
        // FNV-1a: the same ECU has the same facts on every run
        let text = format!("{platform} {} {}", record.name, record.address);
        let identity = text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self {
            exchanges: record.exchanges.clone(),
            identity,
            timing: Timing::default(),
            max_block_length: 0x0FFF,
            max_memory: 16 << 20,
        }
    }
}
