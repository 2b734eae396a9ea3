//! K-line ECUs on a simulated line, one task for each.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use connector_hal::kline::Signal;
use connector_hal::kline::sim::{LineNode, SimLine};
use connector_hal::timer::{Deadline, TimerKind};
use tokio::task::AbortHandle;

use super::anomaly::Anomaly;
use super::config::KlineEcuConfig;
use super::ecu::KlineEcu;

/// A vehicle's ECUs on its K-line. Dropping it takes the ECUs off the line.
pub struct KlineVehicle {
    ecus: Vec<Arc<Mutex<KlineEcu>>>,
    tasks: Vec<AbortHandle>,
}

impl KlineVehicle {
    /// Puts the ECUs on the line. Must be called within a tokio runtime.
    pub fn start(configs: &[KlineEcuConfig], line: &SimLine, timer: TimerKind) -> Self {
        let mut vehicle = Self { ecus: Vec::new(), tasks: Vec::new() };
        for config in configs {
            let ecu = Arc::new(Mutex::new(KlineEcu::new(config.clone(), line.now())));
            let node = line.attach("ecu", config.bit_rate);
            vehicle.tasks.push(tokio::spawn(run(ecu.clone(), node, timer)).abort_handle());
            vehicle.ecus.push(ecu);
        }
        vehicle
    }

    /// Calls `act` with the ECU at `index`.
    pub fn with_ecu<T>(&self, index: usize, act: impl FnOnce(&mut KlineEcu) -> T) -> Option<T> {
        self.ecus.get(index).map(|ecu| act(&mut lock(ecu)))
    }

    /// The tester's violations, with the ECU's address.
    pub fn anomalies(&self) -> Vec<(u8, Vec<Anomaly>)> {
        let of = |ecu: &Arc<Mutex<KlineEcu>>| {
            let ecu = lock(ecu);
            (ecu.config().address, ecu.anomalies().to_vec())
        };
        self.ecus.iter().map(of).filter(|(_, anomalies)| !anomalies.is_empty()).collect()
    }
}

impl Drop for KlineVehicle {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

fn lock(ecu: &Mutex<KlineEcu>) -> MutexGuard<'_, KlineEcu> {
    ecu.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run(ecu: Arc<Mutex<KlineEcu>>, mut node: LineNode, timer: TimerKind) {
    let mut deadline = Deadline::new(timer);
    poll_fn(|cx| {
        loop {
            let mut ecu = lock(&ecu);
            while let Poll::Ready(event) = node.poll_wire(cx) {
                ecu.handle_event(event);
            }
            let now = node.now();
            ecu.handle_timeout(now);
            while let Some(byte) = ecu.poll_transmit(now) {
                node.transmit_at(now, Signal::Byte(byte));
            }
            deadline.set(ecu.poll_timeout());
            drop(ecu);
            if deadline.poll_expired(cx).is_pending() {
                // the node receives its own bytes too
                return Poll::<()>::Pending;
            }
        }
    })
    .await;
}
