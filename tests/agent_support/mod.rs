//! All of it in one process: sandbox cloud, agent, board, vehicle on a virtual bus, operator, portal client.

#![allow(dead_code, unused_imports, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers: each test takes what it needs

mod agent;
mod bench;
mod portal;
mod sandbox;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use connector_sim::vehicle::catalogue::Catalogue;

pub use agent::{AgentSettings, TestAgent};
pub use bench::{BUS, Bench, bus, closed, configure, functional, isotp, vehicle};
pub use portal::{Portal, Socket};
pub use sandbox::{Connector, Sandbox};

/// Only reached when something hangs.
pub const HANG: Duration = Duration::from_secs(60);

/// Waits for what is to happen; says what did not.
#[track_caller]
pub fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(HANG, future).await;
        done.unwrap_or_else(|_| panic!("waited in vain for {what} ({caller})"))
    }
}

pub fn catalogue() -> Catalogue {
    let file = workspace().join("tests/data/vehicles/vehicles.json");
    Catalogue::load(&file).unwrap_or_else(|error| panic!("{error}"))
}

/// The workspace, from whichever of its packages is tested.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|directory| directory.join("tests/data").is_dir()).unwrap()
}
