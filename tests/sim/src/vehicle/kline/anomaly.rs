//! Violations of the standard by the tester.

use std::time::Duration;

/// A violation of ISO 14230-2 by the tester, with the measured time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Low level of a pulse: 25 ms ± 1 ms.
    PulseLow(Duration),
    /// From the pulse's start to StartCommunication: 50 ms ± 1 ms.
    WakeUp(Duration),
    /// Between two bytes of a request: 5 to 20 ms.
    P4(Duration),
    /// Between the last answer and a request: at least 55 ms.
    P3(Duration),
    /// Between key byte 2 and its complement: 25 to 50 ms.
    W4(Duration),
    /// Idle line before the address: at least 300 ms.
    W5(Duration),
    /// Another byte instead of the complement of key byte 2.
    Complement(u8),
    /// A request with a wrong checksum, or with a header that the key bytes do not allow.
    Malformed(Vec<u8>),
    /// A request without communication.
    NotCommunicating(Vec<u8>),
    /// A byte while the ECU was sending.
    Collision,
}
