//! A customer's portal and a partner, written in Python from the documents: the demo's steps after the session.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::story::{ResultTable, Story};
use crate::cloud::Cloud;

const PROGRAM: &str = include_str!("../../../peers/portal_journey.py");

/// A line that the program prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Step { actor: String, text: String },
    End { checks: u64 },
}

/// Runs the program with this Python, and reports its steps.
pub(super) async fn play(
    python: &Path,
    cloud: &Cloud,
    story: &Story,
    table: &mut ResultTable,
) -> anyhow::Result<()> {
    let mut program = Command::new(python)
        .args(["-c", PROGRAM])
        .arg(cloud.ready_line())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {}", python.display()))?;
    let stdout = program.stdout.take().context("the portal has no output")?;
    let (mut lines, mut checks) = (BufReader::new(stdout).lines(), 0);
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line) {
            Ok(Line::Step { actor, text }) => story.report(&actor, &text),
            Ok(Line::End { checks: all }) => checks = all,
            Err(_) => story.report("portal", &line),
        }
    }
    let status = program.wait().await?;
    table.check(
        "Documented APIs",
        format!("{checks} checks by a portal in Python"),
        status.success() && checks > 0,
    );
    Ok(())
}
