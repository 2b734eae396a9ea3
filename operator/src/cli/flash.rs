//! The subcommand `flash`.

use std::path::Path;

use connector_agent::relay::wire::request::Switch;
use connector_agent::{print_error_line, print_line};

use super::args::EcuArgs;
use super::diagnosis::open;
use super::failure::{Failure, FailureKind};
use super::progress::FlashProgress;
use crate::client::{Connection, Timing};
use crate::flash::{Firmware, FlashReport, flash};

/// The longest firmware that is accepted, in bytes. The file is read into memory; a longer one is not an
/// ECU's firmware.
const MAX_FIRMWARE: u64 = 64 << 20;

/// Programs the ECU with the file, and prints the progress and the result.
pub(super) async fn flash_file(
    connection: &Connection,
    ecu: &EcuArgs,
    file: &Path,
    address: u32,
) -> Result<(), Failure> {
    let data = read_firmware(file)?;
    if ecu.is_functional() {
        let advice = "select one with --request-id";
        return Err(Failure::new(FailureKind::Local, "only one ECU can be programmed at a time", advice));
    }
    let channel = open(connection, ecu, Switch::Enabled).await?;
    let timing = Timing { p2: ecu.p2(), ..Timing::default() };
    let mut progress = FlashProgress::new(data.len(), |line| print_error_line!("  {line}"));
    let firmware = Firmware { address, data: &data };
    let mut show = |step| progress.handle(step);
    let report = tokio::select! {
        report = flash(&channel, firmware, &timing, &mut show) => report,
        _ = tokio::signal::ctrl_c() => {
            let what = "interrupted while programming: the ECU may be without valid firmware now";
            return Err(Failure::new(FailureKind::Local, what, "flash again before the vehicle is used"));
        }
    };
    progress.end();
    print_report(&report?);
    Ok(())
}

fn read_firmware(file: &Path) -> Result<Vec<u8>, Failure> {
    let local = |what| Failure::new(FailureKind::Local, what, "check that this is the right file");
    let length = std::fs::metadata(file).map(|metadata| metadata.len());
    if length.is_ok_and(|length| length > MAX_FIRMWARE) {
        return Err(local(format!("{} is longer than {MAX_FIRMWARE} bytes", file.display())));
    }
    std::fs::read(file).map_err(|error| local(format!("cannot read {}: {error}", file.display())))
}

fn print_report(report: &FlashReport) {
    let rate = report.bytes as f64 / report.transferring.as_secs_f64().max(0.001);
    print_line!(
        "Programmed and checked: {} bytes in {} blocks, {:.1} s in all, {rate:.0} bytes/s while transferring.",
        report.bytes,
        report.blocks,
        report.total.as_secs_f64(),
    );
}
