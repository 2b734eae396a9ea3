//! Negative response codes (ISO 14229-1, annex A).

/// Negative response codes that the simulated ECUs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Nrc {
    /// serviceNotSupported
    ServiceNotSupported = 0x11,
    /// subFunctionNotSupported
    SubFunctionNotSupported = 0x12,
    /// incorrectMessageLengthOrInvalidFormat
    IncorrectMessageLength = 0x13,
    /// busyRepeatRequest
    BusyRepeatRequest = 0x21,
    /// requestSequenceError
    RequestSequenceError = 0x24,
    /// requestOutOfRange
    RequestOutOfRange = 0x31,
    /// securityAccessDenied
    SecurityAccessDenied = 0x33,
    /// invalidKey
    InvalidKey = 0x35,
    /// exceededNumberOfAttempts
    ExceededNumberOfAttempts = 0x36,
    /// requiredTimeDelayNotExpired
    RequiredTimeDelayNotExpired = 0x37,
    /// uploadDownloadNotAccepted
    UploadDownloadNotAccepted = 0x70,
    /// wrongBlockSequenceCounter
    WrongBlockSequenceCounter = 0x73,
    /// requestCorrectlyReceived-ResponsePending
    ResponsePending = 0x78,
    /// subFunctionNotSupportedInActiveSession
    SubFunctionNotSupportedInActiveSession = 0x7E,
    /// serviceNotSupportedInActiveSession
    ServiceNotSupportedInActiveSession = 0x7F,
}

impl Nrc {
    /// The code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether an ECU suppresses this response to a functional request, to which all other ECUs would
    /// respond alike (ISO 14229-1, 7.5.6).
    pub(super) const fn is_suppressed_when_functional(self) -> bool {
        matches!(
            self,
            Self::ServiceNotSupported
                | Self::SubFunctionNotSupported
                | Self::RequestOutOfRange
                | Self::SubFunctionNotSupportedInActiveSession
                | Self::ServiceNotSupportedInActiveSession
        )
    }

    /// The negative response to a request of `service`, as a PDU.
    pub fn response(self, service: u8) -> Vec<u8> {
        vec![0x7F, service, self.code()]
    }
}
