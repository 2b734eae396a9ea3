//! Changes that a trial makes to the machine: network, CAN, file system and clock.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rustix::mount::MountFlags;
use rustix::time::{ClockId, Timespec};
use tokio::process::Command;

/// The device's network namespace.
pub(super) const DEVICE: &str = "device";
/// The cloud's address on the network between it and the device.
pub(super) const CLOUD_ADDRESS: &str = "10.77.0.1";
/// The vehicle's end of the CAN bus; [`DEVICE_CAN`] is the device's end.
pub(super) const VEHICLE_CAN: &str = "vehicle0";
/// The device's CAN interface.
pub(super) const DEVICE_CAN: &str = "can0";

/// Runs `ip` of iproute2.
pub(super) async fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("/sbin/ip")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .await
        .context("cannot run ip")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ip {arguments}: {}", stderr.trim());
    Ok(())
}

/// Creates the network between the cloud and the device.
pub(super) async fn add_network() -> anyhow::Result<()> {
    ip(&format!("link add cloud0 type veth peer name eth0 netns {DEVICE}")).await?;
    ip("address add 10.77.0.254/24 dev cloud0").await?;
    ip("link set cloud0 up").await?;
    ip(&format!("-netns {DEVICE} address add 10.77.0.2/24 dev eth0")).await?;
    ip(&format!("-netns {DEVICE} link set eth0 up")).await
}

/// Removes the network, at both ends.
pub(super) async fn remove_network() -> anyhow::Result<()> {
    ip("link del cloud0").await
}

/// Creates the CAN bus between the vehicle and the device. The device's end is down.
pub(super) async fn add_can() -> anyhow::Result<()> {
    ip(&format!("link add {VEHICLE_CAN} type vxcan peer name {DEVICE_CAN} netns {DEVICE}")).await?;
    ip(&format!("link set {VEHICLE_CAN} up")).await
}

/// Sets the device's end of the CAN bus `up` or `down`.
pub(super) async fn set_can(state: &str) -> anyhow::Result<()> {
    ip(&format!("-netns {DEVICE} link set {DEVICE_CAN} {state}")).await
}

/// Removes the CAN bus, at both ends.
pub(super) async fn remove_can() -> anyhow::Result<()> {
    ip(&format!("link del {VEHICLE_CAN}")).await
}

/// Creates the device's network namespace.
pub(super) async fn add_device() -> anyhow::Result<()> {
    std::fs::create_dir_all("/var/run").context("/var/run")?;
    ip(&format!("netns add {DEVICE}")).await?;
    ip(&format!("-netns {DEVICE} link set lo up")).await?;
    // lets the operator reach the cloud without the network to the device
    let _there_already = ip(&format!("address add {CLOUD_ADDRESS}/32 dev lo")).await;
    Ok(())
}

/// Removes the device's network namespace, with its end of the networks.
pub(super) async fn remove_device() -> anyhow::Result<()> {
    ip(&format!("netns del {DEVICE}")).await
}

/// Mounts a file system of `bytes` in memory at `at`.
pub(super) fn mount_small(at: &Path, bytes: u64) -> anyhow::Result<()> {
    let options = std::ffi::CString::new(format!("size={bytes},mode=0755"))?;
    rustix::mount::mount("device", at, "tmpfs", MountFlags::empty(), options.as_c_str())
        .with_context(|| format!("cannot mount a file system at {}", at.display()))
}

/// Makes the file system read-only or writable.
pub(super) fn set_read_only(at: &Path, read_only: bool) -> anyhow::Result<()> {
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    rustix::mount::mount_remount(at, flags, "").with_context(|| format!("cannot remount {}", at.display()))
}

/// Unmounts the file system.
pub(super) fn unmount(at: &Path) -> anyhow::Result<()> {
    let flags = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(at, flags).with_context(|| format!("cannot unmount {}", at.display()))
}

/// Seconds since 1970.
pub(super) fn clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Sets the machine's clock, in seconds since 1970.
pub(super) fn set_clock(seconds: u64) -> anyhow::Result<()> {
    let time = Timespec { tv_sec: seconds.try_into()?, tv_nsec: 0 };
    rustix::time::clock_settime(ClockId::Realtime, time).context("cannot set the clock")
}

/// A jump of the clock, which can be reversed.
pub(super) struct Jump {
    before: u64,
    since: tokio::time::Instant,
}

impl Jump {
    /// Sets the clock to `seconds` since 1970.
    pub(super) fn to(seconds: u64) -> anyhow::Result<Self> {
        let jump = Self { before: clock(), since: tokio::time::Instant::now() };
        set_clock(seconds)?;
        Ok(jump)
    }

    /// Sets the clock right again, including the time that has passed since the jump.
    pub(super) fn back(self) -> anyhow::Result<()> {
        set_clock((Duration::from_secs(self.before) + self.since.elapsed()).as_secs())
    }
}
