//! The kernel's filters: they pass the frames that the owner wants and the echoes of our own frames.

use socketcan::CanFilter as KernelFilter;

use crate::can::{CanFilter, CanId};

/// How many identifiers of our own frames get a filter for their echoes. With more, only [`Filters::pass`]
/// filters. The agent sends with a few identifiers, except in a scan; the rest of the kernel's 512 filters is
/// for the owner.
const ECHO_FILTERS: usize = 64;
/// The kernel takes 512 filters, those for echoes included. With more, only [`Filters::pass`] filters.
const MOST_FILTERS: usize = 512 - ECHO_FILTERS;

/// The filters of one socket.
#[derive(Debug)]
pub(super) struct Filters {
    wanted: Vec<CanFilter>,
    /// Identifiers of our own frames that no wanted filter passes; `None` once there were too many.
    echo_ids: Option<Vec<CanId>>,
}

impl Default for Filters {
    /// Everything passes.
    fn default() -> Self {
        Self { wanted: Vec::new(), echo_ids: Some(Vec::new()) }
    }
}

impl Filters {
    /// Sets the filters of the owner; without any, every frame passes.
    pub(super) fn set(&mut self, wanted: &[CanFilter]) {
        self.wanted = wanted.to_vec();
    }

    /// Forgets which echoes must pass.
    pub(super) fn forget_echoes(&mut self) {
        self.echo_ids = Some(Vec::new());
    }

    /// Whether the owner wants frames with this identifier.
    pub(super) fn pass(&self, id: CanId) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|filter| filter.matches(id))
    }

    /// Lets the echo of a frame with this identifier through; returns whether the kernel's filters must
    /// change.
    pub(super) fn let_echo_through(&mut self, id: CanId) -> bool {
        let passes = self.pass(id);
        let Some(echo_ids) = self.echo_ids.as_mut().filter(|ids| !passes && !ids.contains(&id)) else {
            return false;
        };
        if echo_ids.len() < ECHO_FILTERS {
            echo_ids.push(id);
        } else {
            self.echo_ids = None;
        }
        true
    }

    /// The filters for the kernel; `None` to receive everything.
    pub(super) fn of_kernel(&self) -> Option<Vec<KernelFilter>> {
        // the identifier's format must match; remote and data frames both pass
        let kernel = |filter: CanFilter| {
            KernelFilter::new(filter.id.to_socketcan(), filter.mask & 0x1FFF_FFFF | 0x8000_0000)
        };
        let echo_ids = self.echo_ids.as_ref()?;
        if !(1..=MOST_FILTERS).contains(&self.wanted.len()) {
            return None;
        }
        let echoes = echo_ids.iter().copied().map(CanFilter::exactly);
        Some(self.wanted.iter().copied().chain(echoes).map(kernel).collect())
    }
}
