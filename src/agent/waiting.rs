//! The requests that wait until the VIN has been read.

use crate::relay::wire::request::OpenConnection;

/// The `request_id` of a request, if the request has one.
pub(super) type RequestId = Option<String>;

/// The requests that wait until the VIN has been read.
#[derive(Default)]
pub(super) struct VinWaiters {
    pub(super) opening: Option<WaitingOpen>,
    pub(super) identifying: Vec<RequestId>,
}

/// An `openConnection` that waits until the VIN has been read.
pub(super) struct WaitingOpen {
    pub(super) open: OpenConnection,
    pub(super) request_id: RequestId,
}

impl VinWaiters {
    /// Forgets all requests.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
