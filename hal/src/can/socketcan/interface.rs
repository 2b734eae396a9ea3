//! The network interface behind a CAN socket, controlled by netlink: bit rates, modes, up and down.

use std::io;

use socketcan::nl::{CanBitTiming, CanCtrlModes, CanState, InterfaceCanParams, InterfaceDetails, Mtu};
use socketcan::{CanCtrlMode, CanInterface};

use crate::bus::BusState;
use crate::can::{CanCapabilities, CanError, CanSettings};

/// `IFF_ECHO`: the driver echoes a frame after sending it, not already when accepting it.
const IFF_ECHO: u32 = 1 << 18;
/// The bit of `CAP_NET_ADMIN`.
const CAP_NET_ADMIN: u32 = 12;
/// How often an interface is set up if it has other settings afterwards: another program, such as a network manager,
/// may set it up at the same time, and does so once.
const SET_UP_ATTEMPTS: u32 = 3;
const NEEDS_CAPABILITY: &str = " (this needs CAP_NET_ADMIN)";

/// The present state and abilities of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub is_up: bool,
    /// A controller with bit timing is behind the interface; vcan and vxcan have none.
    pub has_controller: bool,
    pub has_fd_mtu: bool,
    pub state: BusState,
    pub capabilities: CanCapabilities,
    /// The kernel leaves bus-off by itself.
    pub restarts_itself: bool,
}

/// A CAN interface by name. The interface may go away and come back.
#[derive(Debug, Clone)]
pub(super) struct SocketCanInterface {
    device: String,
    name: String,
}

impl SocketCanInterface {
    /// Errors name `device`.
    pub(super) fn new(device: &str, name: &str) -> Self {
        Self { device: device.to_owned(), name: name.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Reads the state and abilities of the interface.
    pub(super) fn facts(&self) -> Result<Facts, CanError> {
        let (_, details) = self.look()?;
        Ok(self.judge(&details))
    }

    /// Brings the interface up with these settings. An interface that already has them is left alone, unless
    /// `purge` asks to discard the frames that wait in it.
    pub(super) fn set_up(&self, settings: &CanSettings, purge: bool) -> Result<(), CanError> {
        let (interface, details) = self.look()?;
        let facts = self.judge(&details);
        if facts.has_controller {
            self.set_up_controller(&interface, &details, &facts, settings, purge)
        } else {
            self.set_up_virtual(&interface, &facts, settings)
        }
    }

    /// Leaves bus-off and discards the frames that wait in the interface.
    pub(super) fn restart(&self) -> Result<(), CanError> {
        let (interface, details) = self.look()?;
        let facts = self.judge(&details);
        if facts.has_controller && may_administer() {
            let cycled = interface.bring_down().and_then(|()| interface.bring_up());
            return cycled.map_err(|error| self.failed(error, "restart"));
        }
        if facts.state == BusState::Off && !facts.restarts_itself {
            return Err(self.unsupported(format!("restart{NEEDS_CAPABILITY}")));
        }
        Ok(())
    }

    /// Discards the frames that wait in the interface if `purge` is set. Then puts the controller into listen-only
    /// mode, if it has that mode. An interface that this process may not set up stays as it is.
    pub(super) fn leave(&self, purge: bool) {
        if let Err(error) = self.try_leave(purge) {
            tracing::debug!(device = %self.device, %error, "the interface stays on the bus");
        }
    }

    fn try_leave(&self, purge: bool) -> Result<(), CanError> {
        let (interface, details) = self.look()?;
        let facts = self.judge(&details);
        if !facts.has_controller || !facts.is_up || !may_administer() {
            return Ok(());
        }
        if let Some(quiet) = quiet_settings(&details.can).filter(|_| facts.capabilities.listen_only) {
            return self.set_up_controller(&interface, &details, &facts, &quiet, purge);
        }
        if purge { self.restart() } else { Ok(()) }
    }

    fn look(&self) -> Result<(CanInterface, InterfaceDetails), CanError> {
        let interface = CanInterface::open(&self.name).map_err(|error| self.lost(error))?;
        let details = interface.details().map_err(|error| self.lost(error))?;
        Ok((interface, details))
    }

    fn judge(&self, details: &InterfaceDetails) -> Facts {
        let can = &details.can;
        let has_controller = can.state.is_some() || can.bit_timing_const.is_some() || can.ctrl_mode.is_some();
        let supports = |mode: CanCtrlMode| {
            // kernels before 6.0 do not report the supported modes
            has_controller && can.ctrl_mode_supported.is_none_or(|supported| supported & mode.mask() != 0)
        };
        let has_fd_mtu = details.mtu == Some(Mtu::Fd);
        let fd_controller = can.ctrl_mode_supported.is_some() && supports(CanCtrlMode::Fd);
        Facts {
            is_up: details.is_up,
            has_controller,
            has_fd_mtu,
            state: match can.state {
                Some(CanState::BusOff) => BusState::Off,
                Some(CanState::ErrorPassive) => BusState::Passive,
                _ => BusState::Active,
            },
            capabilities: CanCapabilities {
                fd: has_fd_mtu || fd_controller || can.data_bit_timing_const.is_some(),
                listen_only: supports(CanCtrlMode::ListenOnly),
                set_bit_rate: has_controller && may_administer(),
                confirms_transmission: !has_controller || self.echoes(),
            },
            restarts_itself: can.restart_ms.is_some_and(|restart_ms| restart_ms > 0),
        }
    }

    fn echoes(&self) -> bool {
        let flags = std::fs::read_to_string(format!("/sys/class/net/{}/flags", self.name)).ok();
        let flags = flags.as_deref().and_then(|flags| flags.trim().strip_prefix("0x"));
        flags.and_then(|flags| u32::from_str_radix(flags, 16).ok()).is_some_and(|flags| flags & IFF_ECHO != 0)
    }

    fn set_up_virtual(
        &self,
        interface: &CanInterface,
        facts: &Facts,
        settings: &CanSettings,
    ) -> Result<(), CanError> {
        if settings.listen_only {
            return Err(self.unsupported("listen only".to_owned()));
        }
        if settings.data_bit_rate.is_some() && !facts.has_fd_mtu {
            let set = interface
                .bring_down()
                .and_then(|()| interface.set_mtu(Mtu::Fd))
                .and_then(|()| interface.bring_up());
            return set.map_err(|error| self.failed(error, "do CAN FD"));
        }
        if !facts.is_up {
            interface.bring_up().map_err(|error| self.failed(error, "join the bus"))?;
        }
        Ok(())
    }

    fn set_up_controller(
        &self,
        interface: &CanInterface,
        details: &InterfaceDetails,
        facts: &Facts,
        settings: &CanSettings,
        purge: bool,
    ) -> Result<(), CanError> {
        let as_wanted = is_as_wanted(&details.can, settings);
        let clean = facts.state == BusState::Active && !purge;
        if as_wanted && facts.is_up && (clean || !may_administer()) {
            return Ok(());
        }
        if settings.listen_only && !facts.capabilities.listen_only {
            return Err(self.unsupported("listen only".to_owned()));
        }
        if settings.data_bit_rate.is_some() && !facts.capabilities.fd {
            return Err(self.unsupported("do CAN FD".to_owned()));
        }
        let what = match settings.data_bit_rate {
            Some(data) => format!("set {} bit/s and {data} bit/s for the data phase", settings.bit_rate),
            None => format!("set {} bit/s", settings.bit_rate),
        };
        let is_set = set_up_until_it_stays(|| {
            interface.bring_down().map_err(|error| self.failed(error, &what))?;
            let set = interface.set_can_params(&params(&details.can, settings));
            let chosen = self.look().map(|(_, details)| timing(&details.can));
            // even after a refusal, bring the interface up again, as it was before
            let up = if set.is_ok() || facts.is_up { interface.bring_up() } else { Ok(()) };
            set.map_err(|error| self.failed(error, &what))?;
            up.map_err(|error| self.failed(error, "join the bus"))?;
            Ok::<_, CanError>((chosen?, timing(&self.look()?.1.can)))
        })?;
        let other = || self.unsupported(format!("{what}: another program sets the interface up differently"));
        is_set.then_some(()).ok_or_else(other)
    }

    fn unsupported(&self, what: String) -> CanError {
        CanError::Unsupported { device: self.device.clone(), what }
    }

    /// The error for a request that failed: the interface is gone, or else the system refused. The library
    /// does not always pass on netlink's reason.
    fn failed(&self, error: socketcan::Error, what: &str) -> CanError {
        let source = into_io(error);
        if CanInterface::open(&self.name).is_err() {
            return CanError::Device { device: self.device.clone(), source };
        }
        let hint = if may_administer() { "" } else { NEEDS_CAPABILITY };
        tracing::debug!(device = %self.device, error = %source, what, "the system refused the request");
        self.unsupported(format!("{what}{hint}"))
    }

    pub(super) fn lost(&self, error: socketcan::Error) -> CanError {
        CanError::Device { device: self.device.clone(), source: into_io(error) }
    }
}

fn into_io(error: socketcan::Error) -> io::Error {
    match error {
        socketcan::Error::Io(error) => error,
        socketcan::Error::Nl(error) => {
            error.errno().map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
        }
        error => io::Error::other(error),
    }
}

/// Whether a bit rate is within 1 % of the wanted one: a controller cannot produce every bit rate exactly.
fn is_near(actual: Option<CanBitTiming>, wanted: u32) -> bool {
    actual.is_some_and(|timing| timing.bitrate.abs_diff(wanted) <= wanted / 100)
}

fn is_as_wanted(can: &InterfaceCanParams, settings: &CanSettings) -> bool {
    let has = |mode| can.ctrl_mode.is_some_and(|modes| modes.has_mode(mode));
    is_near(can.bit_timing, settings.bit_rate)
        && settings
            .data_bit_rate
            .is_none_or(|rate| has(CanCtrlMode::Fd) && is_near(can.data_bit_timing, rate))
        && has(CanCtrlMode::ListenOnly) == settings.listen_only
}

/// Repeats a set-up, which returns the settings before and after the interface went up, until they are equal. Returns
/// false if they never are.
fn set_up_until_it_stays<T: PartialEq, E>(mut set_up: impl FnMut() -> Result<(T, T), E>) -> Result<bool, E> {
    for _ in 0..SET_UP_ATTEMPTS {
        let (chosen, actual) = set_up()?;
        if chosen == actual {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The bit rates, and whether the controller only listens.
fn timing(can: &InterfaceCanParams) -> (Option<u32>, Option<u32>, bool) {
    let bit_rate = |timing: Option<CanBitTiming>| timing.map(|timing| timing.bitrate);
    let listens_only = can.ctrl_mode.is_some_and(|modes| modes.has_mode(CanCtrlMode::ListenOnly));
    (bit_rate(can.bit_timing), bit_rate(can.data_bit_timing), listens_only)
}

/// The present settings, but listening only.
fn quiet_settings(can: &InterfaceCanParams) -> Option<CanSettings> {
    let has_fd = can.ctrl_mode.is_some_and(|modes| modes.has_mode(CanCtrlMode::Fd));
    Some(CanSettings {
        bit_rate: can.bit_timing?.bitrate,
        data_bit_rate: can.data_bit_timing.filter(|_| has_fd).map(|timing| timing.bitrate),
        listen_only: true,
    })
}

fn params(can: &InterfaceCanParams, settings: &CanSettings) -> InterfaceCanParams {
    let supports = |mode: CanCtrlMode| can.ctrl_mode_supported.is_some_and(|modes| modes & mode.mask() != 0);
    let mut modes = CanCtrlModes::from_mode(CanCtrlMode::ListenOnly, settings.listen_only);
    modes.add(CanCtrlMode::Fd, settings.data_bit_rate.is_some());
    // bus errors show a listener that its bit rate is wrong
    let reports_errors = settings.listen_only && supports(CanCtrlMode::BerrReporting);
    modes.add(CanCtrlMode::BerrReporting, reports_errors);
    let timing = |bitrate| CanBitTiming { bitrate, ..CanBitTiming::default() };
    InterfaceCanParams {
        bit_timing: Some(timing(settings.bit_rate)),
        data_bit_timing: settings.data_bit_rate.map(timing),
        ctrl_mode: Some(modes),
        ..InterfaceCanParams::default()
    }
}

/// Whether this process may configure interfaces.
fn may_administer() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|capabilities| capabilities >> CAP_NET_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_another_program_changes_is_set_up_again() {
        let set_up = |actual: &[u32]| {
            let mut actual = actual.iter();
            let mut attempts = 0;
            let stays = set_up_until_it_stays(|| {
                attempts += 1;
                actual.next().map(|actual| (500_000, *actual)).ok_or("gone")
            });
            (stays, attempts)
        };
        assert_eq!(set_up(&[500_000]), (Ok(true), 1));
        assert_eq!(set_up(&[250_000, 500_000]), (Ok(true), 2));
        assert_eq!(set_up(&[250_000; 9]), (Ok(false), 3));
        assert_eq!(set_up(&[250_000]), (Err("gone"), 2));
    }
}
