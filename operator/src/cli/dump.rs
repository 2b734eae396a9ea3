//! The subcommand `dump`.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use connector_agent::relay::wire::codec::EventCode;
use connector_agent::relay::wire::request::RawChannelConfig;

use super::BUS;
use super::failure::Failure;
use crate::client::{Connection, Item};

/// Prints the frames on the bus as `candump -L` does, for this long or until interrupted.
pub(super) async fn dump(connection: &Connection, duration: Option<Duration>) -> Result<(), Failure> {
    let config =
        RawChannelConfig { bus_name: BUS.to_owned(), request_id: None, response_id: None, max_age_ms: None };
    let channel = connection.open_raw(config).await?;
    let opened = SystemTime::now();
    // the time at which the connector's clock was zero, derived from the first frame
    let mut epoch: Option<Duration> = None;
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut out = io::stdout().lock();
    loop {
        let received = tokio::select! {
            () = &mut end => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
            received = channel.recv() => received?,
        };
        let epoch = *epoch.get_or_insert_with(|| {
            let now = SystemTime::now().max(opened).duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(received.at)
        });
        let at = (epoch + received.at).as_secs_f64();
        // a reader that has closed the pipe needs no more
        if print(&mut out, at, &received.item).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}

fn print(out: &mut impl Write, at: f64, item: &Item) -> io::Result<()> {
    match item {
        Item::Frame(frame) => writeln!(out, "({at:.6}) {BUS} {frame}"),
        Item::Event { code: EventCode::Gap, value, .. } => {
            writeln!(out, "# ({at:.6}) {value} frames are missing here")
        }
        Item::Event { code: EventCode::BusState, detail, .. } => {
            let state = ["active", "passive", "off"].get(usize::from(*detail)).unwrap_or(&"unknown");
            writeln!(out, "# ({at:.6}) the bus is {state}")
        }
        _ => Ok(()),
    }
}
