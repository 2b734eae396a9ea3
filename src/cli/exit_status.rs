//! The exit statuses shared by several commands.

/// An unusable configuration (EX_CONFIG of sysexits.h).
pub(super) const CONFIG_STATUS: u8 = 78;
