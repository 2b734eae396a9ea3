//! Which CAN identifiers carry diagnostics, and how they address ECUs.

use connector_hal::can::CanId;

/// What the identifiers of a frame say about ISO-TP's addressing in its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressing {
    /// Nothing: both forms have to be considered.
    Either,
    /// The N_PCI is in the first byte.
    Normal,
    /// The first byte is an address.
    Extended,
}

/// Functional requests of OBD (ISO 15765-4, 6.3).
const OBD_FUNCTIONAL: u32 = 0x7DF;
/// Requests of BMW's testers, with extended addressing.
const BMW: u32 = 0x6F1;
/// The third byte of 29-bit identifiers with normal fixed addressing, physical and functional (ISO 15765-2, 10.3.3).
const NORMAL_FIXED: [u32; 2] = [0x18DA, 0x18DB];

/// Returns what the identifier says about addressing.
pub(super) fn addressing(id: CanId) -> Addressing {
    match (id.is_extended(), id.raw()) {
        (false, OBD_FUNCTIONAL) => Addressing::Normal,
        (false, BMW) => Addressing::Extended,
        (true, raw) if NORMAL_FIXED.contains(&(raw >> 16)) => Addressing::Normal,
        _ => Addressing::Either,
    }
}

/// Whether the identifier is one of OBD's requests to one ECU, which have normal addressing (ISO 15765-4, 10.3).
pub(super) fn is_obd(id: CanId) -> bool {
    !id.is_extended() && (0x7E0..=0x7E7).contains(&id.raw())
}

/// Whether the identifier is one of diagnostics by the standards.
pub(super) fn is_diagnostic(id: CanId) -> bool {
    match (id.is_extended(), id.raw()) {
        (false, raw) => (0x700..=0x7FF).contains(&raw) || raw == BMW,
        (true, raw) => NORMAL_FIXED.contains(&(raw >> 16)),
    }
}

/// The identifier of the requests to which responses with this identifier belong: 8 less, as in ISO 15765-4 and with
/// most manufacturers.
pub(super) fn request_of(response: CanId) -> Option<CanId> {
    let raw = response.raw();
    match response.is_extended() {
        false if (0x708..=0x7FF).contains(&raw) => CanId::standard(raw - 8).ok(),
        _ => None,
    }
}
