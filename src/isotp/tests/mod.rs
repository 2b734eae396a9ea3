//! Tests of the whole: first two ends and a bus between them, then single ends with a scripted peer.

mod functional;
mod net;
mod transfers;
