//! A node of the virtual bus as a [`CanBus`].

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::node::{BusNode, is_same_rate};
use super::shared::SharedBus;
use crate::bus::{BusState, BusStatus};
use crate::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use crate::future::BoxFuture;

enum SendRefusal {
    Gone,
    Cannot(&'static str),
}

/// A node of a [`VirtualBus`](super::VirtualBus). Dropping detaches it.
pub struct VirtualCan {
    pub(super) name: String,
    pub(super) key: u32,
    pub(super) shared: Arc<SharedBus>,
}

impl VirtualCan {
    /// Leaves the bus until the next configuration and discards waiting frames and events.
    pub(crate) fn leave(&mut self) {
        self.with_node(BusNode::leave);
    }

    pub(super) fn with_node(&mut self, action: impl FnOnce(&mut BusNode)) {
        let key = self.key;
        self.shared.act(|medium, _| medium.nodes.get_mut(&key).map(action));
    }

    fn gone(&self) -> CanError {
        let source = io::Error::new(io::ErrorKind::NotConnected, "unplugged");
        CanError::Device { device: self.name.clone(), source }
    }

    fn unsupported(&self, what: impl Into<String>) -> CanError {
        CanError::Unsupported { device: self.name.clone(), what: what.into() }
    }

    fn check(&self, settings: &CanSettings) -> Result<(), CanError> {
        let (capabilities, current, unplugged) = {
            let state = self.shared.lock();
            let Some(node) = state.medium.nodes.get(&self.key) else { return Err(self.gone()) };
            (node.capabilities, node.settings.unwrap_or(state.medium.settings()), node.unplugged)
        };
        if unplugged {
            return Err(self.gone());
        }
        let other_rate = !is_same_rate(settings.bit_rate, current.bit_rate);
        if settings.bit_rate == 0 || other_rate && !capabilities.set_bit_rate {
            return Err(self.unsupported(format!("set {} bit/s", settings.bit_rate)));
        }
        if settings.data_bit_rate.is_some() && !capabilities.fd {
            return Err(self.unsupported("do CAN FD"));
        }
        if settings.listen_only && !capabilities.listen_only {
            return Err(self.unsupported("listen only"));
        }
        Ok(())
    }
}

impl CanBus for VirtualCan {
    fn device(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> CanCapabilities {
        let state = self.shared.lock();
        state.medium.nodes.get(&self.key).map(|node| node.capabilities).unwrap_or_default()
    }

    fn status(&self) -> BusStatus {
        let state = self.shared.lock();
        let node = state.medium.nodes.get(&self.key);
        BusStatus {
            state: node.filter(|node| !node.unplugged).map_or(BusState::Off, |node| node.state),
            load: state.medium.load.load(self.shared.config.timer.now()),
        }
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            self.check(&settings)?;
            self.with_node(|node| node.configure(settings));
            Ok(())
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            self.with_node(|node| {
                if node.state == BusState::Off {
                    node.restart();
                }
            });
            Ok(())
        })
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.with_node(|node| node.filters = filters.to_vec());
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        let limit = self.shared.config.transmit_queue.max(1);
        let key = self.key;
        let taken = self.shared.act(|medium, now| {
            let Some(node) = medium.nodes.get_mut(&key).filter(|node| !node.unplugged) else {
                return Poll::Ready(Err(SendRefusal::Gone));
            };
            match node.settings {
                None => return Poll::Ready(Err(SendRefusal::Cannot("send before it is configured"))),
                Some(settings) if settings.listen_only => {
                    return Poll::Ready(Err(SendRefusal::Cannot("send while it only listens")));
                }
                Some(settings) if frame.is_fd() && settings.data_bit_rate.is_none() => {
                    return Poll::Ready(Err(SendRefusal::Cannot("send an FD frame on a classic bus")));
                }
                Some(_) if frame.is_error() => {
                    return Poll::Ready(Err(SendRefusal::Cannot("send an error frame")));
                }
                Some(_) => {}
            }
            let full = node.outgoing.len() >= limit || node.events.is_full();
            if full || node.state == BusState::Off {
                node.wants_room = Some(cx.waker().clone());
                return Poll::Pending;
            }
            medium.enqueue(key, *frame, now);
            Poll::Ready(Ok(()))
        });
        taken.map_err(|refusal| match refusal {
            SendRefusal::Gone => self.gone(),
            SendRefusal::Cannot(what) => self.unsupported(what),
        })
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        let mut state = self.shared.lock();
        let node = state.medium.nodes.get_mut(&self.key);
        let Some(node) = node.filter(|node| !node.unplugged) else {
            drop(state);
            return Poll::Ready(Err(self.gone()));
        };
        let Some(event) = node.events.pop() else {
            node.wants_event = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if !node.events.is_full() {
            node.wake_sender();
        }
        Poll::Ready(Ok(event))
    }
}

impl Drop for VirtualCan {
    fn drop(&mut self) {
        let key = self.key;
        self.shared.act(|medium, _| medium.nodes.remove(&key));
    }
}
