//! The key algorithm of the simulated ECUs. It protects nothing.

/// The key for a seed: `(seed XOR 0x5EC0DE00 XOR level)` rotated left by 7 bits, where `level` is the odd
/// sub-function that requested the seed. Seed and key are big-endian.
pub fn toy_key(level: u8, seed: [u8; 4]) -> [u8; 4] {
    (u32::from_be_bytes(seed) ^ 0x5EC0_DE00 ^ u32::from(level)).rotate_left(7).to_be_bytes()
}
