//! Reading the VIN: what to ask, how to understand the answers, and how to do both without upsetting a vehicle.

mod number;

pub use number::{Vin, VinError};
