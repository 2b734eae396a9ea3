//! The configuration of an entity, and its deviations from the standard.

use std::time::Duration;

use connector_agent::protocol::doip::{
    ActivationCode, ActivationType, Announcement, DiagnosticNackCode, Eid, FurtherAction, Gid,
    LogicalAddress, NodeType, PowerMode, ProtocolVersion, SyncStatus,
};
use connector_agent::protocol::vin::Vin;

/// The timers of a DoIP entity (ISO 13400-2, table 12 and 39).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// T_TCP_Initial_Inactivity: limit for routing activation on a new connection.
    pub initial_inactivity: Duration,
    /// T_TCP_General_Inactivity: limit for the next message on an activated connection.
    pub general_inactivity: Duration,
    /// T_TCP_Alive_Check: limit for the answer to an alive check.
    pub alive_check: Duration,
    /// A_DoIP_Announce_Interval: interval of announcements.
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

/// The answers to routing activation requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// According to the standard.
    #[default]
    ByTheBook,
    /// Always this code.
    Always(ActivationCode),
    /// No answer.
    Never,
}

/// The confirmation in the vehicle that routing activation requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// The time until the decision.
    pub after: Duration,
    /// Whether the confirmation is granted.
    pub granted: bool,
}

/// The rules of routing activation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationPolicy {
    /// The answers to requests.
    pub answer: Answer,
    /// The accepted testers; `None` accepts 0x0E00…0x0FFF.
    pub testers: Option<Vec<LogicalAddress>>,
    /// The accepted activation types.
    pub types: Vec<ActivationType>,
    /// The required confirmation in the vehicle.
    pub confirmation: Option<Confirmation>,
    /// Whether only TLS connections get routing.
    pub tls_required: bool,
    /// The required manufacturer field of requests; others lack authentication.
    pub oem: Option<[u8; 4]>,
    /// The manufacturer field of responses.
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

/// The configuration of a DoIP entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityConfig {
    /// The protocol version of the entity's messages; the entity accepts all versions.
    pub version: ProtocolVersion,
    /// The entity's announcement.
    pub announcement: Announcement,
    /// The number of announcements at the start.
    pub announcements: u32,
    /// The node type.
    pub node_type: NodeType,
    /// Limit of activated connections; one more may be open.
    pub max_sockets: u8,
    /// Limit of a diagnostic message, in bytes.
    pub max_data_size: Option<u32>,
    /// The vehicle's power mode; `None` rejects the request as unknown.
    pub power_mode: Option<PowerMode>,
    /// The ECUs behind the entity.
    pub targets: Vec<LogicalAddress>,
    /// The functional addresses, each of which reaches all ECUs.
    pub functional: Vec<LogicalAddress>,
    /// Whether messages for unknown ECUs are passed on too.
    pub any_target: bool,
    /// The rules of routing activation.
    pub activation: ActivationPolicy,
    /// Refuses every diagnostic message with this code.
    pub diagnostic_nack: Option<DiagnosticNackCode>,
    /// Acknowledges no diagnostic message.
    pub no_acknowledgement: bool,
    /// The delay of everything that the entity sends.
    pub latency: Duration,
    /// The timers.
    pub timeouts: Timeouts,
}

impl EntityConfig {
    /// A gateway with this address and the usual behaviour.
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

    /// Whether messages for this address are passed on.
    pub(super) fn knows(&self, target: LogicalAddress) -> bool {
        self.any_target || self.targets.contains(&target) || self.functional.contains(&target)
    }
}

/// The VIN field of an announcement without a VIN.
pub(crate) fn no_vin() -> [u8; 17] {
    [0xFF; 17]
}
