//! What an entity is like, and how well it behaves.

use std::time::Duration;

use connector_agent::protocol::doip::{
    ActivationCode, ActivationType, Announcement, DiagnosticNackCode, Eid, FurtherAction, Gid,
    LogicalAddress, NodeType, PowerMode, ProtocolVersion, SyncStatus,
};
use connector_agent::protocol::vin::Vin;

/// The timers of a DoIP entity (ISO 13400-2, table 12 and 39).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// T_TCP_Initial_Inactivity: how long a connection may be open without routing activation.
    pub initial_inactivity: Duration,
    /// T_TCP_General_Inactivity: how long nothing may pass over an activated one.
    pub general_inactivity: Duration,
    /// T_TCP_Alive_Check: how long a tester may take to say that it is there.
    pub alive_check: Duration,
    /// A_DoIP_Announce_Interval: from one announcement to the next.
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

/// How requests for routing are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// As the standard says.
    #[default]
    ByTheBook,
    /// Always by this code.
    Always(ActivationCode),
    /// Not at all.
    Never,
}

/// Somebody in the vehicle has to agree before routing is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    /// How long that takes.
    pub after: Duration,
    /// Whether it is agreed to.
    pub granted: bool,
}

/// Who gets routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationPolicy {
    /// How requests are answered.
    pub answer: Answer,
    /// The testers that are served; `None` serves 0x0E00…0x0FFF.
    pub testers: Option<Vec<LogicalAddress>>,
    /// The activation types known.
    pub types: Vec<ActivationType>,
    /// What has to be confirmed in the vehicle.
    pub confirmation: Option<Confirmation>,
    /// Only connections by TLS get routing.
    pub tls_required: bool,
    /// What the tester has to give in the manufacturer's field, else authentication is missing.
    pub oem: Option<[u8; 4]>,
    /// What is answered in the manufacturer's field.
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

/// An entity.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityConfig {
    /// The edition of its messages; it understands those of all.
    pub version: ProtocolVersion,
    /// Who it is.
    pub announcement: Announcement,
    /// How often it announces itself when it starts.
    pub announcements: u32,
    /// What it is.
    pub node_type: NodeType,
    /// How many activated connections it serves; one more may be open.
    pub max_sockets: u8,
    /// The longest diagnostic message that it takes, in bytes.
    pub max_data_size: Option<u32>,
    /// Whether the vehicle is ready; `None` where it does not know the question.
    pub power_mode: Option<PowerMode>,
    /// The ECUs behind it.
    pub targets: Vec<LogicalAddress>,
    /// The groups of them.
    pub functional: Vec<LogicalAddress>,
    /// Every ECU is passed on, whether it is among the targets or not.
    pub any_target: bool,
    /// Who gets routing.
    pub activation: ActivationPolicy,
    /// Refuses every diagnostic message so.
    pub diagnostic_nack: Option<DiagnosticNackCode>,
    /// Acknowledges no diagnostic message.
    pub no_acknowledgement: bool,
    /// How long everything takes that it says.
    pub latency: Duration,
    /// Its timers.
    pub timeouts: Timeouts,
}

impl EntityConfig {
    /// A gateway at this address.
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

    /// Whether a message for this address is passed on.
    pub(super) fn knows(&self, target: LogicalAddress) -> bool {
        self.any_target || self.targets.contains(&target) || self.functional.contains(&target)
    }
}

/// What is announced while the VIN is not known.
pub fn no_vin() -> [u8; 17] {
    [0xFF; 17]
}
