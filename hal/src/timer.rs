//! Deadlines finer than the runtime's 1 ms timer wheel.
