//! The resources that a process used, as the kernel counts them.

use anyhow::Context;

/// CPU time in seconds and resident memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub cpu_seconds: f64,
    pub resident: u64,
}

/// Reads the usage of a process, in nanoseconds (`schedstat`), because ticks of 10 ms are too coarse.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let mut nanoseconds = 0u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        nanoseconds += text.split_whitespace().next().context("schedstat is empty")?.parse::<u64>()?;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|line| line.split_whitespace().next())
        .context("no VmRSS")?;
    Ok(Usage { cpu_seconds: nanoseconds as f64 / 1e9, resident: kilobytes.parse::<u64>()? * 1024 })
}

/// The clock of both processes, in µs.
pub(crate) fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}
