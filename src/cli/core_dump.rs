//! Keeping secrets out of core dumps.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Makes this process leave no core dump, and keeps other processes of the same user from reading its memory.
pub fn disable_core_dumps() -> io::Result<()> {
    // A limit of 0 does not hold for a pipe in core_pattern; this does.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // Only says the same again; a service's system-call filter may forbid it.
    let _is_enough_without = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn afterwards_no_core_dump_is_possible() {
        disable_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
