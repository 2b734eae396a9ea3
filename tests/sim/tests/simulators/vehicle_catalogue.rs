//! The whole file of vehicles, and the error messages about invalid files.

use connector_sim::vehicle::catalogue::{Catalogue, CatalogueError};
use connector_test_support::data::catalogue;

fn wrong(text: &str) -> String {
    Catalogue::parse(text).unwrap_err().to_string()
}

#[test]
fn every_vehicle_of_the_file_is_read() {
    let catalogue = catalogue();
    assert_eq!(catalogue.vehicles().len(), 171);
    assert_eq!(catalogue.vehicles().iter().map(|vehicle| vehicle.ecus.len()).sum::<usize>(), 746);
    assert_eq!(catalogue.vehicles().iter().filter(|vehicle| vehicle.vin_exchanges.is_empty()).count(), {
        catalogue.vehicles().iter().filter(|vehicle| vehicle.vin.is_none()).count()
    });
}

#[test]
fn an_ecu_that_only_gives_the_vin_becomes_a_node_of_its_own() {
    let catalogue = catalogue();
    let civic = catalogue.find("HONDA_CIVIC").unwrap();
    let nodes = civic.nodes();
    assert_eq!(nodes.len(), civic.ecus.len() + 1);
    let last = nodes.last().unwrap();
    assert_eq!(last.address.to_string(), "0x18DA0EF1/0x18DAF10E");
    assert_eq!(last.exchanges.len(), 1);
}

#[test]
fn an_ecu_of_the_list_that_gives_the_vin_stays_one_node() {
    let catalogue = catalogue();
    let pacifica = catalogue.find("CHRYSLER_PACIFICA_2018").unwrap();
    let nodes = pacifica.nodes();
    assert_eq!(nodes.len(), pacifica.ecus.len());
    let engine = nodes.iter().find(|node| node.name == "engine").unwrap();
    assert!(engine.exchanges.iter().any(|exchange| exchange.request == [0x09, 0x02]));
}

#[test]
fn ecus_that_share_identifiers_are_distinguished_by_extended_addresses() {
    let catalogue = catalogue();
    let camry = catalogue.find("TOYOTA_CAMRY").unwrap();
    let shared: Vec<_> = camry.ecus.iter().filter(|ecu| ecu.address.request.raw() == 0x750).collect();
    assert_eq!(shared.len(), 2);
    assert_ne!(shared[0].address, shared[1].address);
    assert!(shared.iter().any(|ecu| ecu.address.to_string() == "0x750/0x758/0x0F"));
}

#[test]
fn an_unknown_platform_is_an_error_that_suggests_similar_names() {
    let error = catalogue().find("honda_civc").unwrap_err();
    let CatalogueError::UnknownPlatform { near, .. } = &error else { panic!("{error}") };
    assert_eq!(near[0], "HONDA_CIVIC");
    assert!(
        error.to_string().starts_with("no vehicle has the platform honda_civc; similar names: HONDA_CIVIC")
    );
    let part = catalogue().find("PACIFICA").unwrap_err().to_string();
    assert!(part.contains("CHRYSLER_PACIFICA_2018"), "{part}");
    let error = catalogue().find("%%%").unwrap_err().to_string();
    assert_eq!(error, "no vehicle has the platform %%%");
}

#[test]
fn a_fault_is_reported_with_line_platform_and_field() {
    let vehicle = |ecu: &str| {
        format!(
            "[\n\n{{\"make\":\"m\",\"platform\":\"P\",\"vin\":null,\"vin_exchanges\":[],\"ecus\":[{ecu}]}}\n]"
        )
    };
    let ecu = |request_id: &str, request: &str| {
        format!(
            r#"{{"ecu":"e","request_id":"{request_id}","response_id":"0x7e8","extended_address":null,
                "exchanges":[{{"request":"{request}","response":"7e00"}}]}}"#
        )
    };
    assert!(Catalogue::parse(&vehicle(&ecu("0x7e0", "3e00"))).is_ok());
    assert_eq!(
        wrong(&vehicle(&ecu("0x7e0", "3e0"))),
        "line 3, platform P, ecus[0].exchanges[0].request: an odd number of hex digits (3)"
    );
    assert_eq!(
        wrong(&vehicle(&ecu("0x7e0", ""))),
        "line 3, platform P, ecus[0].exchanges[0].request: a PDU has at least one byte"
    );
    assert_eq!(
        wrong(&vehicle(&ecu("7e0", "3e00"))),
        "line 3, platform P, ecus[0].request_id: `7e0` is not a CAN identifier; write 0x7E0 or 0x18DA10F1"
    );
    assert_eq!(
        wrong(&vehicle(&format!("{},{}", ecu("0x7e0", "3e00"), ecu("0x7e0", "3e01")))),
        "line 3, platform P, ecus[1]: another ECU of the vehicle also has the address 0x7E0/0x7E8"
    );
}

#[test]
fn a_missing_field_is_reported_with_line_and_platform() {
    let error = wrong("[\n{\"make\":\"m\",\n\"platform\":\"P\",\"vin\":null,\"ecus\":[]}]");
    assert!(error.starts_with("line 3, platform P: missing field `vin_exchanges`"), "{error}");
    assert!(wrong("[{}]").starts_with("line 1, a vehicle without platform: missing field"));
    assert!(wrong("[{]").starts_with("the file is not a list of vehicles:"));
    assert!(wrong("{}").starts_with("the file is not a list of vehicles:"));
}

#[test]
fn an_invalid_vin_and_a_duplicate_platform_are_refused() {
    let vehicle =
        |vin: &str| format!(r#"{{"make":"m","platform":"P","vin":{vin},"vin_exchanges":[],"ecus":[]}}"#);
    assert_eq!(
        wrong(&format!("[{}]", vehicle("\"ABC\""))),
        "line 1, platform P, vin: a VIN has 17 characters, not 3"
    );
    assert_eq!(
        wrong(&format!("[{}]", vehicle("\"00000000000000000\""))),
        "line 1, platform P, vin: the VIN is a placeholder"
    );
    assert_eq!(
        wrong(&format!("[{},\n{}]", vehicle("null"), vehicle("null"))),
        "line 2, platform P, platform: another vehicle has the same platform"
    );
}
