//! The simulators' binary.

fn main() {}
