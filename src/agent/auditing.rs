//! The audit of the agent's policy.

use connector_hal::clock::now;

use super::supervisor::Supervisor;
use crate::relay::wire::Envelope;

impl Supervisor {
    /// Writes what the policy has for its audit.
    pub(super) fn record_audit(&mut self) {
        while let Some(entry) = self.policy.with(|policy| policy.poll_audit(now())) {
            self.audit.record(entry);
        }
    }

    /// Adds the head of the audit to `connectionClosed`, when the entries of the connection are on the disk.
    pub(super) async fn add_audit_head(&mut self, message: &mut Envelope) {
        self.record_audit();
        if let (Some(head), Some(content)) = (self.audit.head().await, message.message.as_object_mut()) {
            content.insert("audit_head".to_owned(), head.to_string().into());
        }
    }
}
