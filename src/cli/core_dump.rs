//! Keeps secrets out of core dumps.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Prevents core dumps of this process, and prevents other processes of the same user from reading its
/// memory.
pub(super) fn disable_core_dumps() -> io::Result<()> {
    // unlike a limit of 0, this also counts for a pipe in core_pattern
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // a second safeguard; a service's system-call filter may forbid it
    let _optional = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn core_dumps_are_impossible_after_the_call() {
        disable_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
