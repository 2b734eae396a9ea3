//! An ECU's configuration and processing times.

use std::time::Duration;

use crate::vehicle::catalogue::{EcuRecord, Exchange};
use crate::vehicle::drive::Drive;

/// Timing parameters and processing times of an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// P2: limit for a response or the first response pending.
    pub p2: Duration,
    /// P2*: limit for the next response after a response pending.
    pub p2_star: Duration,
    /// S3: time that a session lasts without a request.
    pub s3: Duration,
    /// Processing time of an ordinary request.
    pub processing: Duration,
    /// Time to erase the memory.
    pub erase: Duration,
    /// Time to write a block of a download.
    pub write: Duration,
    /// Time to check a downloaded image.
    pub check: Duration,
    /// Time to restart.
    pub reset: Duration,
    /// Time without seeds after too many wrong keys.
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

/// The configuration of an ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcuConfig {
    /// The recorded answers of the real ECU.
    pub exchanges: Vec<Exchange>,
    /// The seed of the ECU's generated data: trouble codes and security seeds.
    pub identity: u64,
    /// Timing parameters and processing times.
    pub timing: Timing,
    /// The longest accepted TransferData request, including service identifier and counter.
    pub max_block_length: u16,
    /// Limit of the total size of all downloaded images, in bytes.
    pub max_memory: usize,
    /// How the ECU's vehicle drives.
    pub drive: Drive,
}

impl EcuConfig {
    /// An ECU of a vehicle, with the usual timing.
    pub fn new(platform: &str, record: &EcuRecord) -> Self {
        // FNV-1a: the same ECU has the same data on every run
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
            drive: Drive::default(),
        }
    }
}
