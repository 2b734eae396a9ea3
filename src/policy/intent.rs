//! An intent: an action on the vehicle that the policy judges.

use connector_hal::can::{CanFrame, CanId};

/// The bus of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntentBus<'a> {
    /// The bus's number within the connection.
    pub index: usize,
    /// The bus's name in the configuration; empty if the bus has none.
    pub name: &'a str,
}

/// The ECU, or group of ECUs, that an intent addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntentTarget {
    /// No ECU in particular.
    None,
    /// The listeners to a CAN identifier.
    Can {
        /// The identifier that the connector sends.
        id: CanId,
        /// The address byte of extended addressing (ISO 15765-2, 10.3.4).
        extended: Option<u8>,
    },
    /// The ECU at an address of a K-line, or of TP2.0's set-up.
    Address(u8),
    /// The ECU at a logical address of DoIP (ISO 13400-2).
    Logical(u16),
}

/// How a channel of ISO-TP makes the frames of its PDUs. Other channels have the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    /// TX_DL, the longest data field, in bytes (ISO 15765-2, 9.5).
    pub tx_dl: u8,
    /// The byte behind the content of a frame.
    pub padding: u8,
    /// BS and STmin of flow controls (ISO 15765-2, 9.6.5).
    pub flow_control: [u8; 2],
}

/// Classic frames with the padding of ISO 15765-4.
impl Default for Framing {
    fn default() -> Self {
        Self { tx_dl: 8, padding: 0xCC, flow_control: [0; 2] }
    }
}

/// The action of an intent.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// Sends a diagnostic request.
    Pdu(&'a [u8], Framing),
    /// Sends a raw frame.
    Frame(&'a CanFrame),
    /// Sends what keeps a session alive, or ends it.
    KeepAlive,
    /// Opens a channel of PDUs to the target.
    OpenChannel(Framing),
    /// Opens a channel of raw frames, each of which is judged by itself.
    OpenRawChannel,
    /// Sets up the bus.
    ConfigureBus,
    /// Searches for all ECUs of the bus.
    Scan,
    /// Reads the VIN.
    ReadVin,
}

/// One intent.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// The bus.
    pub bus: IntentBus<'a>,
    /// The ECU.
    pub target: IntentTarget,
    /// The action.
    pub what: What<'a>,
}

/// When an intent is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The intent has arrived, and may wait before its turn.
    Arrival,
    /// The intent's turn on the bus has come: what is allowed now goes out.
    Turn,
}
