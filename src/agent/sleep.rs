//! Sleep: the agent is offline and silent on every bus, and waits for a reason to wake.

use std::task::{Context, Poll};

use connector_hal::board::{Board, BoardEvent};
use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};
use tokio::sync::mpsc;

use super::notify::Notifier;
use super::power::{SLEEPING_SAMPLE_INTERVAL, WakeCause, WakeCauses};
use super::setup::Control;
use super::vin_watch::{Found, VinWatch};

/// The parts of the agent that stay in use during sleep.
pub(super) struct Sleeper<'a> {
    pub(super) board: &'a mut dyn Board,
    pub(super) watch: &'a mut VinWatch,
    pub(super) notifier: &'a mut Notifier,
    pub(super) causes: WakeCauses,
}

/// Why sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SleepEnd {
    /// There is a reason to wake.
    Woken(WakeCause),
    /// The process asks for an end.
    Control(Control),
}

impl Sleeper<'_> {
    /// Sleeps until there is a reason to wake, or the process asks for an end.
    pub(super) async fn sleep(mut self, control: &mut mpsc::Receiver<Control>) -> SleepEnd {
        self.notifier.report_sleeping();
        self.watch.listen().await;
        let mut deadline = Deadline::new(TimerKind::Runtime);
        let mut sample_at = now() + SLEEPING_SAMPLE_INTERVAL;
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(command) = control.poll_recv(cx) {
                    return Poll::Ready(SleepEnd::Control(command.unwrap_or(Control::Shutdown)));
                }
                if let Some(cause) = self.poll_board(cx).or_else(|| self.poll_watch(cx)) {
                    return Poll::Ready(SleepEnd::Woken(cause));
                }
                let now = now();
                if sample_at <= now {
                    sample_at = now + SLEEPING_SAMPLE_INTERVAL;
                    if let Some(cause) = self.causes.handle_voltage(self.board.voltage()) {
                        return Poll::Ready(SleepEnd::Woken(cause));
                    }
                }
                self.notifier.handle_timeout(now);
                deadline.set([Some(sample_at), self.notifier.poll_timeout()].into_iter().flatten().min());
                if deadline.poll_expired(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Handles all pending events of the board, up to one that wakes.
    fn poll_board(&mut self, cx: &mut Context<'_>) -> Option<WakeCause> {
        while let Poll::Ready(event) = self.board.poll_event(cx) {
            let cause = match event {
                BoardEvent::Ignition(ignition) => self.causes.handle_ignition(ignition),
                // a mechanic at the vehicle wants attention
                BoardEvent::Button(Some(true)) => Some(WakeCause::Button),
                BoardEvent::Button(_) => None,
            };
            if cause.is_some() {
                return cause;
            }
        }
        None
    }

    /// Handles all pending events of the VIN watch, up to one that wakes.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Option<WakeCause> {
        while let Poll::Ready(Some(found)) = self.watch.poll_found(cx) {
            match found {
                Found::Activity => return Some(WakeCause::Bus),
                // a reading that was in progress when sleep began
                Found::Vin { .. } => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use connector_hal::board::{SimBoard, SimBoardHandle};
    use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
    use connector_hal::can::{CanBusExt as _, CanFrame, CanId};

    use super::super::vin_watch::WatchStart;
    use super::*;
    use crate::config::{PowerConfig, VinSettings};
    use crate::policy::SharedPolicy;
    use crate::vehicle::hardware::Hardware;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A sleeping connector on a bus in virtual time.
    struct SleepRig {
        bus: VirtualBus,
        board: SimBoard,
        handle: SimBoardHandle,
        watch: VinWatch,
        notifier: Notifier,
        power: PowerConfig,
        _control: mpsc::Sender<Control>,
        commands: mpsc::Receiver<Control>,
    }

    impl SleepRig {
        fn new() -> Self {
            let bus = VirtualBus::new(VirtualBusConfig::default());
            let (board, handle) = SimBoard::new();
            handle.set_ignition(Some(false));
            handle.set_voltage(Some(11.0));
            let power = PowerConfig { sleep_below: Some(11.8.try_into().unwrap()), ..PowerConfig::default() };
            let (control, commands) = mpsc::channel(1);
            Self {
                watch: VinWatch::spawn(
                    Hardware::on_bus(&bus),
                    VinSettings::default(),
                    SharedPolicy::default(),
                    Some(false),
                    WatchStart::Ordinary,
                ),
                notifier: Notifier::from_environment(now()),
                bus,
                board,
                handle,
                power,
                _control: control,
                commands,
            }
        }

        async fn sleep(&mut self) -> SleepEnd {
            let Self { board, watch, notifier, power, commands, .. } = self;
            Sleeper { board, watch, notifier, causes: WakeCauses::new(power) }.sleep(commands).await
        }

        async fn wakes(&mut self) -> SleepEnd {
            tokio::time::timeout(MINUTE, self.sleep()).await.unwrap()
        }

        /// Whether the connector stays asleep for this long.
        async fn sleeps_for(&mut self, time: Duration) -> bool {
            tokio::time::timeout(time, self.sleep()).await.is_err()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeping_agent_sends_nothing_and_wakes_when_a_silent_bus_has_frames() {
        let mut rig = SleepRig::new();
        assert!(rig.sleeps_for(10 * MINUTE).await);
        let mut node = rig.bus.attach("a node of the vehicle");
        let _acknowledges = rig.bus.attach("another node of the vehicle");
        let sent = async {
            tokio::time::sleep(MINUTE).await;
            let frame = CanFrame::new(CanId::standard(0x123).unwrap(), &[1]).unwrap();
            node.send(&frame).await.unwrap();
            std::future::pending::<()>().await;
        };
        let bus = rig.bus.clone();
        let woken = tokio::select! {
            woken = tokio::time::timeout(2 * MINUTE, rig.sleep()) => woken,
            () = sent => unreachable!(),
        };
        assert_eq!(woken, Ok(SleepEnd::Woken(WakeCause::Bus)));
        assert_eq!(bus.statistics().frames, 1, "the node's frame, and none from the connector");
    }

    #[tokio::test(start_paused = true)]
    async fn the_ignition_the_voltage_and_the_button_wake_a_sleeping_agent() {
        let mut rig = SleepRig::new();
        assert!(rig.sleeps_for(MINUTE).await);
        rig.handle.set_ignition(Some(true));
        assert_eq!(rig.wakes().await, SleepEnd::Woken(WakeCause::Ignition));
        rig.handle.set_ignition(Some(false));
        assert!(rig.sleeps_for(MINUTE).await);
        rig.handle.set_voltage(Some(12.0));
        assert!(rig.sleeps_for(MINUTE).await, "not clearly above the limit");
        rig.handle.press_button();
        assert_eq!(rig.wakes().await, SleepEnd::Woken(WakeCause::Button));
        rig.handle.set_voltage(Some(12.6));
        assert_eq!(rig.wakes().await, SleepEnd::Woken(WakeCause::Voltage));
    }
}
