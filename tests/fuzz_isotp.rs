//! What fuzzing found worth keeping, replayed.
// the configuration's leave for tests does not reach their helpers
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../fuzz/drivers/isotp.rs"]
mod driver;

#[test]
fn the_isotp_corpus_is_survived() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/isotp");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        driver::drive(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{corpus} is empty");
}
