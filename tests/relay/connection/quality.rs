//! The connector reports how the connection is configured, and how good it is.

use serde_json::json;

use super::common::*;

#[tokio::test(start_paused = true)]
async fn the_configuration_is_reported_as_it_was_made() {
    let mut rig = Rig::new();
    let empty = rig.request("getConfiguration", json!({})).await;
    assert_eq!(empty.action, "configuration");
    assert_eq!(empty.message, json!({"connection_uuid": UUID, "buses": [], "channels": []}));
    let mut doip = doip_bus(5);
    doip["doip_bus"]["doip_network_configuration"] = json!(3005);
    assert_eq!(rig.configure(json!([hs(), doip])).await.action, "busesConfigured");
    rig.open_raw(7, json!({"request_id": 0x100, "max_age_ms": 400})).await;
    rig.open_isotp(3, json!({"extended_response_address": 0xF1, "padding": "toward-ecu"})).await;
    let reported = rig.request("getConfiguration", json!({})).await.message;
    let names: Vec<_> = (0..2).map(|index| reported["buses"][index]["bus_name"].clone()).collect();
    assert_eq!(names, ["HS", doip["bus_name"].as_str().unwrap()]);
    assert_eq!(reported["buses"][1]["doip_bus"]["doip_network_configuration"], 3005);
    assert_eq!(reported["channels"][0]["channel"], 3);
    assert_eq!(reported["channels"][0]["isotp_channel"]["padding"], "toward-ecu");
    assert_eq!(reported["channels"][1]["raw_channel"]["max_age_ms"], 400);
    assert!(reported["channels"][0].get("connection_uuid").is_none());

    // the same buses and channels can be made of it
    assert_eq!(rig.configure(reported["buses"].clone()).await.action, "busesConfigured");
    let none = rig.request("getConfiguration", json!({})).await.message;
    assert_eq!((&none["buses"], &none["channels"]), (&reported["buses"], &json!([])));
    for channel in reported["channels"].as_array().unwrap() {
        assert_eq!(rig.request("openChannel", channel.clone()).await.action, "channelOpened");
    }
    assert_eq!(rig.request("getConfiguration", json!({})).await.message, reported);
}

#[tokio::test(start_paused = true)]
async fn the_quality_is_that_of_the_last_ten_round_trips() {
    let mut rig = Rig::configured().await;
    let fresh = rig.request("connectionQuality", json!({})).await.message;
    assert_eq!((&fresh["round_trip_time"], &fresh["healthy"]), (&json!(null), &json!(true)));
    assert!(fresh["connected_since"].as_u64().unwrap() > 1_700_000_000_000);
    rig.open_raw(1, json!({})).await;
    for (delay, is_healthy) in [(30, true), (300, false), (20, true)] {
        rig.set_network(Network::Up(delay * MILLISECOND));
        let node = Node::attach(&rig.buses[0]);
        for _ in 0..150 {
            node.send(frame(0x100, &[1]));
            rig.send_frame(1, frame(0x100, &[1]));
            rig.run(100 * MILLISECOND).await;
        }
        let quality = rig.request("connectionQuality", json!({})).await.message;
        let round_trip = quality["round_trip_time"].as_u64().unwrap();
        assert!(
            (2 * u64::from(delay)..2 * u64::from(delay) + 110).contains(&round_trip),
            "{delay}: {quality}"
        );
        assert_eq!(quality["healthy"], is_healthy, "{delay}");
    }
}
