//! The configuration of an entity, including deviations from the standard for tests.

use std::time::Duration;

use connector_agent::protocol::doip::{
    ActivationCode, ActivationType, Announcement, DiagnosticNackCode, Eid, FurtherAction, Gid,
    LogicalAddress, NodeType, PowerMode, ProtocolVersion, SyncStatus,
};
use connector_agent::protocol::vin::Vin;

/// The timers of a DoIP entity (ISO 13400-2, table 12 and 39).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// T_TCP_Initial_Inactivity: how long a connection may stay open without routing activation.
    pub initial_inactivity: Duration,
    /// T_TCP_General_Inactivity: how long an activated connection may be silent.
    pub general_inactivity: Duration,
    /// T_TCP_Alive_Check: how long a tester may take to answer an alive check.
    pub alive_check: Duration,
    /// A_DoIP_Announce_Interval: the time between announcements.
    pub announce_interval: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            initial_inactivity: Duration::from_secs(2),
            general_inactivity: Duration::from_secs(300),
            alive_check: Duration::from_millis(500),
            announce_interval: Duration::from_millis(500),
        }
    }
}

/// How the entity answers routing activation requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// As the standard requires.
    #[default]
    ByTheBook,
    /// Always with this code.
    Always(ActivationCode),
    /// Not at all.
    Never,
}

/// A confirmation in the vehicle, which routing activation requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The time until the confirmation.
    pub after: Duration,
    /// Whether the vehicle confirms.
    pub granted: bool,
}

/// Which testers the entity activates routing for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationPolicy {
    /// How the entity answers requests.
    pub answer: Answer,
    /// The testers that are accepted; `None` accepts 0x0E00…0x0FFF.
    pub testers: Option<Vec<LogicalAddress>>,
    /// The supported activation types.
    pub types: Vec<ActivationType>,
    /// The confirmation that activation requires.
    pub confirmation: Option<Confirmation>,
    /// Whether activation requires TLS.
    pub tls_required: bool,
    /// The required content of the manufacturer's field; any other content is missing authentication.
    pub oem: Option<[u8; 4]>,
    /// The content of the manufacturer's field in responses.
    pub oem_answer: Option<[u8; 4]>,
}

impl Default for ActivationPolicy {
    fn default() -> Self {
        Self {
            answer: Answer::ByTheBook,
            testers: None,
            types: vec![ActivationType::Default, ActivationType::Regulation, ActivationType::CentralSecurity],
            confirmation: None,
            tls_required: false,
            oem: None,
            oem_answer: None,
        }
    }
}

/// The configuration of an entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityConfig {
    /// The edition of outgoing messages. The entity accepts all editions.
    pub version: ProtocolVersion,
    /// The identification of the entity and its vehicle.
    pub announcement: Announcement,
    /// The number of announcements at the start.
    pub announcements: u32,
    /// The type of DoIP node.
    pub node_type: NodeType,
    /// The largest number of activated connections. One more connection may be open.
    pub max_sockets: u8,
    /// The longest accepted diagnostic message, in bytes.
    pub max_data_size: Option<u32>,
    /// The answer to the power mode request; `None` if the entity does not support the request.
    pub power_mode: Option<PowerMode>,
    /// The ECUs behind the entity.
    pub targets: Vec<LogicalAddress>,
    /// The functional addresses.
    pub functional: Vec<LogicalAddress>,
    /// Whether messages to addresses outside `targets` are accepted too.
    pub any_target: bool,
    /// The rules for routing activation.
    pub activation: ActivationPolicy,
    /// Refuses every diagnostic message with this code.
    pub diagnostic_nack: Option<DiagnosticNackCode>,
    /// Whether diagnostic messages are not acknowledged.
    pub no_acknowledgement: bool,
    /// The delay of all outgoing messages.
    pub latency: Duration,
    /// The timers.
    pub timeouts: Timeouts,
}

impl EntityConfig {
    /// A gateway with this logical address.
    pub fn new(address: LogicalAddress, vin: Option<&Vin>, eid: Eid) -> Self {
        Self {
            version: ProtocolVersion::V2012,
            announcement: Announcement {
                vin: vin.and_then(|vin| vin.as_str().as_bytes().try_into().ok()).unwrap_or_else(no_vin),
                address,
                eid,
                gid: Some(Gid(eid.0)),
                further_action: FurtherAction::None,
                sync_status: Some(SyncStatus::Synchronized),
            },
            announcements: 3,
            node_type: NodeType::Gateway,
            max_sockets: 8,
            max_data_size: Some(0x0010_0000),
            power_mode: Some(PowerMode::Ready),
            targets: vec![address],
            functional: vec![LogicalAddress::new(0xE000), LogicalAddress::new(0xE400)],
            any_target: false,
            activation: ActivationPolicy::default(),
            diagnostic_nack: None,
            no_acknowledgement: false,
            latency: Duration::ZERO,
            timeouts: Timeouts::default(),
        }
    }

    /// Whether the entity accepts messages to this address.
    pub(super) fn knows(&self, target: LogicalAddress) -> bool {
        self.any_target || self.targets.contains(&target) || self.functional.contains(&target)
    }
}

/// The announced value while the VIN is unknown.
pub fn no_vin() -> [u8; 17] {
    [0xFF; 17]
}
