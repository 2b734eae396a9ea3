//! Reads any text as a recording of a CAN bus.

use connector_sim::vehicle::candump;
use connector_sim::vehicle::recording::Recording;

/// Writing and reading a record again gives the same record, to the microsecond, and the analysis of any
/// recording works.
pub(super) fn drive(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(records) = candump::parse(text) else { return };
    for record in &records {
        let again: candump::Record = record.to_string().parse().expect("the parser reads what it writes");
        assert_eq!((&again.interface, again.frame), (&record.interface, record.frame));
        assert!(again.time <= record.time);
    }
    if let Ok(recording) = Recording::new(records) {
        let _ = (recording.tool_steps(), recording.unexplained(), recording.broken());
        recording.ecus().for_each(drop);
    }
}
