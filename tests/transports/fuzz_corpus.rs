//! Replays the fuzz corpora: passes every file of `fuzz/corpus` to the driver of its fuzz target.

#[path = "../../fuzz/drivers/candump.rs"]
mod candump;
#[path = "../../fuzz/drivers/config.rs"]
mod config;
#[path = "../../fuzz/drivers/doip_datagram.rs"]
mod doip_datagram;
#[path = "../../fuzz/drivers/doip_stream.rs"]
mod doip_stream;
#[path = "../../fuzz/drivers/isotp.rs"]
mod isotp;
#[path = "../../fuzz/drivers/kline.rs"]
mod kline;
#[path = "../../fuzz/drivers/relay_message.rs"]
mod relay_message;
#[path = "../../fuzz/drivers/relay_request.rs"]
mod relay_request;
#[path = "../../fuzz/drivers/scan.rs"]
mod scan;
#[path = "../../fuzz/drivers/slcan.rs"]
mod slcan;
#[path = "../../fuzz/drivers/tp20.rs"]
mod tp20;
#[path = "../../fuzz/drivers/vehicles.rs"]
mod vehicles;
#[path = "../../fuzz/drivers/vin.rs"]
mod vin;

use std::path::Path;

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

fn replay(target: &str, drive: fn(&[u8])) {
    let corpus = corpus().join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        drive(&std::fs::read(path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{} is empty", corpus.display());
}

#[test]
fn the_candump_corpus_passes_its_driver() {
    replay("candump", candump::drive);
}

#[test]
fn the_config_corpus_passes_its_driver() {
    replay("config", config::drive);
}

#[test]
fn the_doip_datagram_corpus_passes_its_driver() {
    replay("doip_datagram", doip_datagram::drive);
}

#[test]
fn the_doip_stream_corpus_passes_its_driver() {
    replay("doip_stream", doip_stream::drive);
}

#[test]
fn the_isotp_corpus_passes_its_driver() {
    replay("isotp", isotp::drive);
}

#[test]
fn the_kline_corpus_passes_its_driver() {
    replay("kline", kline::drive);
}

#[test]
fn the_relay_message_corpus_passes_its_driver() {
    replay("relay_message", relay_message::drive);
}

#[test]
fn the_relay_request_corpus_passes_its_driver() {
    replay("relay_request", relay_request::drive);
}

#[test]
fn the_scan_corpus_passes_its_driver() {
    replay("scan", scan::drive);
}

#[test]
fn the_slcan_corpus_passes_its_driver() {
    replay("slcan", slcan::drive);
}

#[test]
fn the_tp20_corpus_passes_its_driver() {
    replay("tp20", tp20::drive);
}

#[test]
fn the_vehicles_corpus_passes_its_driver() {
    replay("vehicles", vehicles::drive);
}

#[test]
fn the_vin_corpus_passes_its_driver() {
    replay("vin", vin::drive);
}

#[test]
fn every_corpus_is_replayed() {
    let known = [
        "candump",
        "config",
        "doip_datagram",
        "doip_stream",
        "isotp",
        "kline",
        "relay_message",
        "relay_request",
        "scan",
        "slcan",
        "tp20",
        "vehicles",
        "vin",
    ];
    let mut found: Vec<_> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, known);
}
