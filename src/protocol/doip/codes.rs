//! The codes in DoIP messages (ISO 13400-2). Each code type preserves values without a name.

use std::fmt;

/// Defines a code of one byte: an enum that preserves unknown values, its conversions, and its texts.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $value:literal => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
            /// Any other value, as on the wire.
            Other(u8),
        }

        impl From<u8> for $name {
            fn from(value: u8) -> Self {
                match value {
                    $($value => Self::$variant,)+
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(code: $name) -> u8 {
                match code {
                    $($name::$variant => $value,)+
                    $name::Other(value) => value,
                }
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                u8::from(*self) == u8::from(*other)
            }
        }

        impl Eq for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = match self {
                    $(Self::$variant => $text,)+
                    Self::Other(_) => "not a known code",
                };
                write!(formatter, "{text} (0x{:02X})", u8::from(*self))
            }
        }
    };
}

codes! {
    /// The edition of the standard that a message follows (table 16).
    ProtocolVersion {
        /// ISO/DIS 13400-2:2010.
        V2010 = 0x01 => "ISO/DIS 13400-2:2010",
        /// ISO 13400-2:2012.
        V2012 = 0x02 => "ISO 13400-2:2012",
        /// ISO 13400-2:2019.
        V2019 = 0x03 => "ISO 13400-2:2019",
        /// ISO 13400-2:2019/Amd 1, and ISO 13400-2:2025.
        V2025 = 0x04 => "ISO 13400-2:2019/Amd 1 or 2025",
        /// Any edition, in identification requests of a tester that does not know the vehicle's edition yet.
        Default = 0xFF => "any",
    }
}

impl ProtocolVersion {
    /// Returns whether messages of this version are understood.
    ///
    /// Later editions keep the payloads of the earlier ones. Only 0x00 is reserved.
    pub(crate) const fn is_supported(self) -> bool {
        !matches!(self, Self::Other(0))
    }

    /// Returns whether this is the version of one edition, and not the default version.
    pub(crate) const fn is_edition(self) -> bool {
        self.is_supported() && !matches!(self, Self::Default)
    }
}

codes! {
    /// The reason why an entity refused a message because of its header (table 19).
    HeaderNackCode {
        /// Version and inverse version do not match, or the version is unknown; the connection is closed.
        IncorrectPattern = 0x00 => "incorrect pattern format",
        /// The payload type is unknown.
        UnknownPayloadType = 0x01 => "unknown payload type",
        /// The payload is longer than the entity supports.
        MessageTooLarge = 0x02 => "message too large",
        /// The payload is longer than the entity's free memory.
        OutOfMemory = 0x03 => "out of memory",
        /// The length does not fit the payload type; the connection is closed.
        InvalidPayloadLength = 0x04 => "invalid payload length",
    }
}

codes! {
    /// The kind of routing that a tester requests (table 47).
    ActivationType {
        /// Default routing.
        Default = 0x00 => "default",
        /// Routing required by regulation (WWH-OBD).
        Regulation = 0x01 => "required by regulation",
        /// Routing with central security.
        CentralSecurity = 0xE0 => "central security",
    }
}

codes! {
    /// An entity's answer to a routing activation (table 49).
    ActivationCode {
        /// The entity does not serve the tester's address; the connection is closed.
        UnknownSourceAddress = 0x00 => "denied: unknown source address",
        /// All the entity's sockets are in use; the connection is closed.
        NoSocketFree = 0x01 => "denied: all TCP sockets are registered and active",
        /// This connection is activated for another address; it is closed.
        OtherAddressActivated = 0x02 => "denied: the connection is activated for another source address",
        /// Another connection is active with this address; this one is closed.
        AddressInUse = 0x03 => "denied: the source address is active on another connection",
        /// Authentication is missing; the connection stays open.
        MissingAuthentication = 0x04 => "denied: authentication is missing",
        /// The confirmation in the vehicle was refused; the connection is closed.
        RejectedConfirmation = 0x05 => "denied: the confirmation was rejected",
        /// The activation type is unknown; the connection is closed.
        UnsupportedActivationType = 0x06 => "denied: unsupported routing activation type",
        /// The entity requires TLS; the connection is closed.
        TlsRequired = 0x07 => "denied: an encrypted connection by TLS is required",
        /// Routing is active.
        Activated = 0x10 => "routing activated",
        /// Routing will be active after a confirmation in the vehicle.
        ConfirmationRequired = 0x11 => "routing will be activated; confirmation is required",
    }
}

codes! {
    /// The reason why a diagnostic message was not routed (table 26).
    DiagnosticNackCode {
        /// The source address is not the activated one.
        InvalidSourceAddress = 0x02 => "invalid source address",
        /// The target address is unknown.
        UnknownTargetAddress = 0x03 => "unknown target address",
        /// The message is longer than the target supports.
        MessageTooLarge = 0x04 => "diagnostic message too large",
        /// The entity has not enough free memory.
        OutOfMemory = 0x05 => "out of memory",
        /// The target does not answer on its network.
        TargetUnreachable = 0x06 => "target unreachable",
        /// The target's network is unknown.
        UnknownNetwork = 0x07 => "unknown network",
        /// The transport protocol to the target failed.
        TransportProtocolError = 0x08 => "transport protocol error",
    }
}

codes! {
    /// The action that an entity requires of a tester first (table 6).
    FurtherAction {
        /// No action.
        None = 0x00 => "none",
        /// Routing activation with central security.
        CentralSecurity = 0x10 => "routing activation with central security",
    }
}

codes! {
    /// Whether the entities of the vehicle agree on VIN and GID (table 7).
    SyncStatus {
        /// The entities agree.
        Synchronized = 0x00 => "VIN and GID are synchronized",
        /// The entities do not agree yet.
        Incomplete = 0x10 => "VIN and GID are not synchronized yet",
    }
}

codes! {
    /// The kind of an entity (table 11).
    NodeType {
        /// A gateway, which routes messages to ECUs.
        Gateway = 0x00 => "gateway",
        /// An ECU that is on the network itself.
        Node = 0x01 => "node",
    }
}

codes! {
    /// Whether the vehicle is ready for diagnostics (table 9).
    PowerMode {
        /// The vehicle is not ready.
        NotReady = 0x00 => "not ready",
        /// The vehicle is ready.
        Ready = 0x01 => "ready",
        /// The entity cannot determine whether the vehicle is ready.
        NotSupported = 0x02 => "not supported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_preserved_by_every_code() {
        for byte in 0..=u8::MAX {
            assert_eq!(u8::from(ActivationCode::from(byte)), byte);
            assert_eq!(u8::from(ActivationType::from(byte)), byte);
            assert_eq!(u8::from(DiagnosticNackCode::from(byte)), byte);
            assert_eq!(u8::from(FurtherAction::from(byte)), byte);
            assert_eq!(u8::from(HeaderNackCode::from(byte)), byte);
            assert_eq!(u8::from(NodeType::from(byte)), byte);
            assert_eq!(u8::from(PowerMode::from(byte)), byte);
            assert_eq!(u8::from(ProtocolVersion::from(byte)), byte);
            assert_eq!(u8::from(SyncStatus::from(byte)), byte);
        }
    }

    #[test]
    fn a_code_is_displayed_with_its_meaning_and_its_number() {
        assert_eq!(
            ActivationCode::from(0x07).to_string(),
            "denied: an encrypted connection by TLS is required (0x07)"
        );
        assert_eq!(ActivationCode::from(0xE1).to_string(), "not a known code (0xE1)");
        assert_eq!(ActivationCode::Other(0x10), ActivationCode::Activated);
    }
}
