//! Relaying between a scripted connector and a scripted operator, with and without lost links.

use std::time::Duration;

use crate::cloud_support::{Rig, Socket};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const VIN: &str = "1C4PSBEH6L9016061";

/// A cloud with a connection that is open at the connector, and its UUID.
async fn opened() -> (Rig, Socket, Value) {
    let rig = Rig::start().await;
    let mut connector = rig.connector(json!([])).await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    open(&mut connector, &ticket["connection_uuid"]).await;
    (rig, connector, ticket["connection_uuid"].clone())
}

/// Opens the connection that the cloud requests from the connector.
async fn open(connector: &mut Socket, uuid: &Value) {
    let request = connector.hear("openConnection").await;
    assert_eq!(&request["message"]["connection_uuid"], uuid);
    connector.reply(&request, "connectionOpened", json!({"connection_uuid": uuid, "vin_number": VIN})).await;
}

/// The sockets of a connector and of an operator who has joined its connection.
async fn joined() -> (Rig, Socket, Socket, Value) {
    let (rig, connector, uuid) = opened().await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "j", json!({"connection_uuid": uuid})).await;
    operator.hear("connectionJoined").await;
    (rig, connector, operator, uuid)
}

#[tokio::test]
async fn joining_a_ticket_opens_its_connection_and_lets_the_operator_in() {
    let rig = Rig::start().await;
    let mut connector = rig.connector(json!([])).await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    let request = connector.hear("openConnection").await;
    assert_eq!(request["message"]["connection_uuid"], ticket["connection_uuid"]);
    assert_eq!(request["message"]["ticket_id"], ticket["ticket_number"]);
    assert_eq!(request["message"]["vin"], VIN);
    assert_eq!(request["message"]["hold_seconds"], 30);

    // the operator may be faster than the connector
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "j1", json!({"connection_uuid": ticket["connection_uuid"]})).await;
    let opened = json!({"connection_uuid": ticket["connection_uuid"], "vin_number": VIN});
    connector.reply(&request, "connectionOpened", opened).await;
    let reply = operator.hear("connectionJoined").await;
    assert_eq!(reply["request_id"], "j1");
    assert_eq!(reply["message"]["connection_uuid"], ticket["connection_uuid"]);
    assert_eq!(reply["message"]["vin_number"], VIN);
    assert_eq!(reply["message"]["connector"]["uuid"], rig.cloud.connector_uuid.to_string());
    assert_eq!(reply["message"]["connector"]["buses"][0]["kind"], "can");
}

#[tokio::test]
async fn a_ticket_without_a_vin_opens_a_connection_to_any_vehicle() {
    let rig = Rig::start().await;
    let mut connector = rig.connector(json!([])).await;
    rig.join(&rig.pending(None).await).await;
    assert!(connector.hear("openConnection").await["message"].get("vin").is_none());
}

#[tokio::test]
async fn requests_and_replies_pass_unchanged_but_for_the_request_id() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    let message = json!({"connection_uuid": uuid, "buses": [{"bus_name": "HS", "extra": [1, null]}]});
    operator.ask("configureBuses", "same", message.clone()).await;
    operator.ask("openChannel", "same", json!({"connection_uuid": uuid, "channel": 1})).await;
    operator.say("closeChannel", json!({"connection_uuid": uuid, "channel": 1})).await;
    let configure = connector.hear("configureBuses").await;
    assert_eq!(configure["message"], message);
    let channel = connector.hear("openChannel").await;
    let close = connector.hear("closeChannel").await;
    assert_ne!(configure["request_id"], channel["request_id"]);

    // the answers come in another order, one of them is an error
    connector.reply(&close, "channelClosed", json!({"channel": 1})).await;
    let problem =
        json!({"type": "/problems/unknown-bus", "title": "Unknown bus", "status": 404, "detail": "x"});
    connector.reply(&channel, "error", problem.clone()).await;
    connector.reply(&configure, "busesConfigured", json!({"buses": ["HS"]})).await;
    let reply = operator.hear("channelClosed").await;
    assert!(reply.get("request_id").is_none());
    let reply = operator.hear("error").await;
    assert_eq!((&reply["request_id"], &reply["message"]), (&json!("same"), &problem));
    let reply = operator.hear("busesConfigured").await;
    assert_eq!(
        reply,
        json!({"action": "busesConfigured", "message": {"buses": ["HS"]}, "request_id": "same"})
    );
}

#[tokio::test]
async fn the_state_of_the_policy_and_requests_for_consent_pass() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    let state = json!({"connection_uuid": uuid, "mode": "enforce", "motion": "moving", "speed_kmh": 12});
    connector.say("policyState", state.clone()).await;
    assert_eq!(operator.hear("policyState").await, json!({"action": "policyState", "message": state}));
    let ask = json!({"connection_uuid": uuid, "class": "programming", "text": "x"});
    operator.ask("requestConsent", "c", ask.clone()).await;
    let request = connector.hear("requestConsent").await;
    assert_eq!(request["message"], ask);
    let asked = json!({"connection_uuid": uuid, "class": "programming", "seconds": 120});
    connector.reply(&request, "consentRequested", asked.clone()).await;
    let reply = operator.hear("consentRequested").await;
    assert_eq!((&reply["request_id"], &reply["message"]), (&json!("c"), &asked));
}

#[tokio::test]
async fn binary_messages_pass_both_ways_unchanged_and_in_order() {
    let (_rig, mut connector, mut operator, _) = joined().await;
    for round in 0..50_u8 {
        connector.binary(vec![round; usize::from(round) * 100]).await;
        operator.binary(vec![255 - round; 3]).await;
    }
    for round in 0..50_u8 {
        assert_eq!(operator.next_binary().await, vec![round; usize::from(round) * 100]);
        assert_eq!(connector.next_binary().await, vec![255 - round; 3]);
    }
}

#[tokio::test]
async fn a_slow_operator_loses_nothing_and_slows_only_its_own_connector() {
    let (_rig, mut connector, mut operator, _) = joined().await;
    // far more than all queues and socket buffers can hold
    let (messages, size) = (600_u32, 64 * 1024);
    let (progress, mut sent) = tokio::sync::watch::channel(0);
    let sending = tokio::spawn(async move {
        for number in 0..messages {
            let mut message = number.to_be_bytes().to_vec();
            message.resize(size, 0);
            connector.binary(message).await;
            progress.send_replace(number + 1);
        }
        connector
    });
    // the operator does not read: the cloud slows the connector down before it has sent everything
    while let Ok(changed) = tokio::time::timeout(Duration::from_secs(1), sent.changed()).await {
        changed.unwrap();
    }
    assert!(*sent.borrow() < messages);
    for number in 0..messages {
        let message = operator.next_binary().await;
        assert_eq!(message[..4], number.to_be_bytes());
        assert_eq!(message.len(), size);
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_lost_connector_is_announced_and_its_connection_resumes_on_the_new_link() {
    let (rig, connector, mut operator, uuid) = joined().await;
    drop(connector);
    operator.hear("connectionInterrupted").await;
    // without a connector, the message is discarded
    operator.binary(b"lost".to_vec()).await;
    operator.ask("openChannel", "1", json!({"connection_uuid": uuid, "channel": 1})).await;
    operator.refused(503, "connector-offline", "openChannel").await;

    let mut connector = rig.connector(json!([{"connection_uuid": uuid, "received": 1187}])).await;
    let resumed = operator.hear("connectionResumed").await;
    assert_eq!(resumed["message"], json!({"connection_uuid": uuid, "received": 1187}));
    // a message before the resumption would only make a gap
    operator.binary(b"early".to_vec()).await;
    connector.binary(b"early".to_vec()).await;
    operator.ask("resumeConnection", "2", json!({"connection_uuid": uuid, "received": 5})).await;
    operator.binary(b"again".to_vec()).await;
    let request = connector.hear("resumeConnection").await;
    assert_eq!(request["message"]["received"], 5);
    assert_eq!(connector.next_binary().await, b"again");
    connector.reply(&request, "connectionResumed", json!({"connection_uuid": uuid, "received": 1187})).await;
    connector.binary(b"again too".to_vec()).await;
    assert_eq!(operator.hear("connectionResumed").await["request_id"], "2");
    assert_eq!(operator.next_binary().await, b"again too");
}

#[tokio::test]
async fn requests_without_an_answer_fail_when_the_connectors_link_is_lost() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    operator.ask("openChannel", "1", json!({"connection_uuid": uuid, "channel": 1})).await;
    connector.hear("openChannel").await;
    drop(connector);
    let error = operator.refused(503, "connector-offline", "openChannel").await;
    assert_eq!(error["request_id"], "1");
    operator.hear("connectionInterrupted").await;
}

#[tokio::test]
async fn a_connection_that_the_connector_lost_ends_and_can_be_opened_again() {
    let (rig, connector, mut operator, uuid) = joined().await;
    drop(connector);
    operator.hear("connectionInterrupted").await;
    let mut connector = rig.connector(json!([])).await;
    let closed = operator.hear("connectionClosed").await;
    assert_eq!(closed["message"], json!({"connection_uuid": uuid, "reason": "link-lost"}));
    open(&mut connector, &uuid).await;
    // the connector has lost the state of the connection
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 7})).await;
    operator.refused(409, "connection-lost", "joinConnection").await;
    operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn an_operator_that_rejoins_is_resumed_by_the_cloud() {
    let (rig, mut connector, operator, uuid) = joined().await;
    operator.close().await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 42})).await;
    operator.hear("connectionJoined").await;
    let request = connector.hear("resumeConnection").await;
    assert_eq!(request["message"], json!({"connection_uuid": uuid, "received": 42}));
    // the message was sent before the connector had resumed, and would leave a gap before it
    connector.binary(b"early".to_vec()).await;
    connector.reply(&request, "connectionResumed", json!({"connection_uuid": uuid, "received": 9})).await;
    connector.binary(b"again".to_vec()).await;
    let resumed = operator.hear("connectionResumed").await;
    assert_eq!(resumed["message"], json!({"connection_uuid": uuid, "received": 9}));
    assert_eq!(operator.next_binary().await, b"again");
    operator.binary(b"too".to_vec()).await;
    assert_eq!(connector.next_binary().await, b"too");
}

#[tokio::test]
async fn an_operator_that_rejoins_while_the_connector_is_away_resumes_when_it_is_back() {
    let (rig, connector, mut operator, uuid) = joined().await;
    drop(connector);
    operator.hear("connectionInterrupted").await;
    operator.close().await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 42})).await;
    operator.hear("connectionJoined").await;
    let mut connector = rig.connector(json!([{"connection_uuid": uuid, "received": 3}])).await;
    operator.hear("connectionResumed").await;
    operator.ask("resumeConnection", "2", json!({"connection_uuid": uuid, "received": 42})).await;
    connector.hear("resumeConnection").await;
}

#[tokio::test]
async fn an_operator_that_joins_from_scratch_gets_a_newly_opened_connection() {
    let (rig, mut connector, operator, uuid) = joined().await;
    operator.close().await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    let request = connector.hear("closeConnection").await;
    connector.reply(&request, "connectionClosed", json!({"connection_uuid": uuid, "reason": "closed"})).await;
    open(&mut connector, &uuid).await;
    assert_eq!(operator.hear("connectionJoined").await["request_id"], "1");
    operator.binary(b"first".to_vec()).await;
    assert_eq!(connector.next_binary().await, b"first");
}

#[tokio::test]
async fn an_operator_that_stays_away_has_its_connection_closed_at_the_connector() {
    let rig = Rig::start_with(|config| config.hold = Duration::ZERO).await;
    let mut connector = rig.connector(json!([])).await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    let uuid = &ticket["connection_uuid"];
    open(&mut connector, uuid).await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    operator.hear("connectionJoined").await;
    operator.close().await;
    let request = connector.hear("closeConnection").await;
    assert_eq!(&request["message"]["connection_uuid"], uuid);
    connector.reply(&request, "connectionClosed", json!({"connection_uuid": uuid, "reason": "closed"})).await;

    // the ticket is still in progress, so that joining opens the connection again
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    open(&mut connector, uuid).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn a_connector_that_refuses_the_vehicle_refuses_the_operator() {
    let rig = Rig::start().await;
    let mut connector = rig.connector(json!([])).await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    let uuid = &ticket["connection_uuid"];
    let wrong =
        json!({"type": "/problems/wrong-vehicle", "title": "Wrong vehicle", "status": 409, "detail": "x"});
    let request = connector.hear("openConnection").await;
    connector.reply(&request, "error", wrong.clone()).await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    let request = connector.hear("openConnection").await;
    connector.reply(&request, "error", wrong).await;
    operator.refused(409, "wrong-vehicle", "joinConnection").await;
}

#[tokio::test]
async fn of_two_operators_that_wait_for_a_connection_the_first_one_joins_it() {
    for take_over in [false, true] {
        let rig = Rig::start().await;
        let mut connector = rig.connector(json!([])).await;
        let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
        let uuid = &ticket["connection_uuid"];
        let (mut first, mut second) = (rig.operator().await, rig.operator().await);
        first.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
        // messages are handled in order: this answer shows that the join waits
        first.ask("reboot", "2", json!({})).await;
        first.refused(404, "unknown-action", "reboot").await;
        let join = json!({"connection_uuid": uuid, "take_over": take_over});
        second.ask("joinConnection", "1", join).await;
        let (out, inside) = if take_over { (&mut first, &mut second) } else { (&mut second, &mut first) };
        out.refused(409, "connection-in-use", "joinConnection").await;
        open(&mut connector, uuid).await;
        inside.hear("connectionJoined").await;
    }
}

#[tokio::test]
async fn a_second_operator_is_refused_unless_it_takes_over() {
    let (rig, mut connector, mut first, uuid) = joined().await;
    let mut second = rig.operator().await;
    for take_over in [json!(null), json!(false)] {
        let mut join = json!({"connection_uuid": uuid});
        if !take_over.is_null() {
            join["take_over"] = take_over;
        }
        second.ask("joinConnection", "1", join).await;
        second.refused(409, "connection-in-use", "joinConnection").await;
    }
    first.binary(b"still here".to_vec()).await;
    assert_eq!(connector.next_binary().await, b"still here");

    second.ask("joinConnection", "2", json!({"connection_uuid": uuid, "take_over": true})).await;
    assert_eq!(first.hear("connectionTakenOver").await["message"], json!({"connection_uuid": uuid}));
    // the numbers of the messages begin again
    let request = connector.hear("closeConnection").await;
    connector.reply(&request, "connectionClosed", json!({"connection_uuid": uuid, "reason": "closed"})).await;
    open(&mut connector, &uuid).await;
    second.hear("connectionJoined").await;
    first.ask("openChannel", "3", json!({"connection_uuid": uuid, "channel": 1})).await;
    first.refused(403, "not-joined", "openChannel").await;
    first.binary(b"out".to_vec()).await;
    second.binary(b"in".to_vec()).await;
    assert_eq!(connector.next_binary().await, b"in");
}

#[tokio::test]
async fn the_same_operators_new_socket_takes_over_by_itself() {
    let (rig, mut connector, mut old, uuid) = joined().await;
    let mut new = rig.operator().await;
    new.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 3})).await;
    new.hear("connectionJoined").await;
    assert_eq!(connector.hear("resumeConnection").await["message"]["received"], 3);
    assert_eq!(old.hear("connectionTakenOver").await["message"], json!({"connection_uuid": uuid}));
}

/// A second operator takes over the connection of one whose socket has dropped. Returns the rig, the connector, the
/// second operator with its token, and what each of the two got as `opening`.
async fn taken_over_while_away() -> (Rig, Socket, Socket, String, Value, [Value; 2]) {
    let (rig, mut connector, uuid) = opened().await;
    let mut first = rig.operator().await;
    first.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    let first_opening = first.hear("connectionJoined").await["message"]["opening"].clone();
    first.close().await;
    let token = rig.other_operator_token().await;
    let mut second = rig.socket(&token).await;
    second.ask("joinConnection", "2", json!({"connection_uuid": uuid, "take_over": true})).await;
    let request = connector.hear("closeConnection").await;
    connector.reply(&request, "connectionClosed", json!({"connection_uuid": uuid, "reason": "closed"})).await;
    open(&mut connector, &uuid).await;
    let second_opening = second.hear("connectionJoined").await["message"]["opening"].clone();
    (rig, connector, second, token, uuid, [first_opening, second_opening])
}

#[tokio::test]
async fn an_operator_displaced_while_away_does_not_displace_its_successor() {
    let (rig, mut connector, second, _, uuid, [first_opening, second_opening]) =
        taken_over_while_away().await;
    assert_ne!(first_opening, second_opening);
    let mut first = rig.operator().await;
    for received in [0, 42] {
        for opening in [Value::Null, first_opening.clone()] {
            let mut rejoin = json!({"connection_uuid": uuid, "received": received});
            if !opening.is_null() {
                rejoin["opening"] = opening;
            }
            first.ask("joinConnection", "3", rejoin).await;
            first.refused(409, "connection-in-use", "joinConnection").await;
        }
    }
    connector.binary(b"undisturbed".to_vec()).await;
    let mut second = second;
    assert_eq!(second.next_binary().await, b"undisturbed");

    // its numbers are those of the earlier opening, also when no other operator is there
    second.close().await;
    let rejoin = json!({"connection_uuid": uuid, "received": 42, "opening": first_opening});
    first.ask("joinConnection", "4", rejoin).await;
    first.refused(409, "connection-lost", "joinConnection").await;
    first.ask("joinConnection", "5", json!({"connection_uuid": uuid, "received": 42})).await;
    first.refused(409, "connection-lost", "joinConnection").await;
    let rejoin = json!({"connection_uuid": uuid, "received": 42, "take_over": true});
    first.ask("joinConnection", "6", rejoin).await;
    first.refused(409, "connection-lost", "joinConnection").await;
}

#[tokio::test]
async fn the_operator_that_took_over_continues_on_a_new_socket() {
    let (rig, mut connector, mut second, token, uuid, [_, opening]) = taken_over_while_away().await;
    // by the number of the opening with any token, and with the same token by itself
    for (token, message) in [
        (rig.operator_token().await, json!({"connection_uuid": uuid, "received": 0, "opening": opening})),
        (token.clone(), json!({"connection_uuid": uuid, "received": 3, "opening": opening})),
        (token, json!({"connection_uuid": uuid, "received": 5})),
    ] {
        let mut new = rig.socket(&token).await;
        new.ask("joinConnection", "3", message.clone()).await;
        assert_eq!(new.hear("connectionJoined").await["message"]["opening"], opening);
        second.hear("connectionTakenOver").await;
        let request = connector.hear("resumeConnection").await;
        assert_eq!(request["message"]["received"], message["received"]);
        let resumed = json!({"connection_uuid": uuid, "received": 9});
        connector.reply(&request, "connectionResumed", resumed).await;
        new.hear("connectionResumed").await;
        second = new;
    }
}

#[tokio::test]
async fn an_operator_displaced_while_both_ends_are_away_is_refused() {
    let (rig, connector, mut second, _, uuid, [opening, _]) = taken_over_while_away().await;
    drop(connector);
    second.hear("connectionInterrupted").await;
    second.close().await;
    let mut first = rig.operator().await;
    for rejoin in [
        json!({"connection_uuid": uuid, "received": 42, "opening": opening}),
        json!({"connection_uuid": uuid, "received": 42}),
    ] {
        first.ask("joinConnection", "3", rejoin).await;
        first.refused(409, "connection-lost", "joinConnection").await;
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_resumed_is_closed_at_the_connector() {
    let (rig, mut connector, operator, uuid) = joined().await;
    operator.close().await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 42})).await;
    operator.hear("connectionJoined").await;
    let request = connector.hear("resumeConnection").await;
    let problem = json!({"type": "/problems/cannot-resume", "title": "x", "status": 409, "detail": "x"});
    connector.reply(&request, "error", problem).await;
    let closed = operator.hear("connectionClosed").await;
    assert_eq!(closed["message"], json!({"connection_uuid": uuid, "reason": "link-lost"}));
    // the connector still has the connection, with its channels and numbers
    let request = connector.hear("closeConnection").await;
    assert_eq!(request["message"], json!({"connection_uuid": uuid}));
    operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
    connector.reply(&request, "connectionClosed", json!({"connection_uuid": uuid, "reason": "closed"})).await;
    open(&mut connector, &uuid).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn other_logins_than_the_tickets_operator_do_not_join_even_by_taking_over() {
    let (rig, _connector, mut operator, uuid) = joined().await;
    for token in [rig.customer_token().await, rig.connector_token().await] {
        let mut other = rig.socket(&token).await;
        for extra in [json!({}), json!({"take_over": true}), json!({"received": 0})] {
            let mut join = json!({"connection_uuid": uuid});
            join.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            other.ask("joinConnection", "1", join).await;
            other.refused(403, "forbidden", "joinConnection").await;
        }
    }
    operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn the_connector_is_notified_of_operators_that_join_and_leave() {
    let (rig, mut connector, operator, uuid) = joined().await;
    let message = json!({"connection_uuid": uuid});
    assert_eq!(connector.notice().await, json!({"action": "operatorJoined", "message": message}));
    // a websocket that drops
    drop(operator);
    assert_eq!(connector.notice().await, json!({"action": "operatorLeft", "message": message}));
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 1})).await;
    assert_eq!(connector.notice().await, json!({"action": "operatorJoined", "message": message}));
    connector.hear("resumeConnection").await;
    operator.hear("connectionJoined").await;
    operator.close().await;
    assert_eq!(connector.notice().await, json!({"action": "operatorLeft", "message": message}));
}

#[tokio::test]
async fn a_connector_that_does_not_know_the_notices_disturbs_no_operator() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    let unknown = json!({"type": "/problems/unknown-action", "title": "x", "status": 404, "detail": "x",
        "in_reply_to": "operatorJoined"});
    connector.say("error", unknown).await;
    operator.ask("openChannel", "1", json!({"connection_uuid": uuid, "channel": 1})).await;
    let request = connector.hear("openChannel").await;
    connector.reply(&request, "channelOpened", json!({"connection_uuid": uuid, "channel": 1})).await;
    operator.hear("channelOpened").await;
}

#[tokio::test]
async fn the_notice_of_a_resumption_has_no_request_id_and_the_reply_has_one() {
    let (rig, connector, mut operator, uuid) = joined().await;
    drop(connector);
    operator.hear("connectionInterrupted").await;
    let mut connector = rig.connector(json!([{"connection_uuid": uuid, "received": 3}])).await;
    assert_eq!(operator.hear("connectionResumed").await.get("request_id"), None);
    let message = json!({"connection_uuid": uuid, "received": 0});
    operator.say("resumeConnection", message.clone()).await;
    operator.refused(400, "violations", "resumeConnection").await;
    operator.ask("resumeConnection", "8", message.clone()).await;
    let request = connector.hear("resumeConnection").await;
    connector.reply(&request, "connectionResumed", message).await;
    assert_eq!(operator.hear("connectionResumed").await["request_id"], "8");
}

#[tokio::test]
async fn joining_a_connection_is_refused_until_the_connector_is_online() {
    let rig = Rig::start().await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    let uuid = &ticket["connection_uuid"];
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    operator.refused(503, "connector-offline", "joinConnection").await;
    let mut connector = rig.connector(json!([])).await;
    open(&mut connector, uuid).await;
    operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn late_messages_of_an_old_connection_do_not_disturb_its_reopening() {
    let (rig, connector, mut operator, uuid) = joined().await;
    connector.close().await;
    operator.hear("connectionInterrupted").await;
    let mut connector = rig.connector(json!([])).await;
    assert_eq!(operator.hear("connectionClosed").await["message"]["reason"], "link-lost");
    operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
    connector.say("connectionClosed", json!({"connection_uuid": uuid, "reason": "link-lost"})).await;
    open(&mut connector, &uuid).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn a_connection_that_the_connector_closes_is_closed_for_the_operator() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    connector.say("connectionClosed", json!({"connection_uuid": uuid, "reason": "vehicle-lost"})).await;
    let closed = operator.hear("connectionClosed").await;
    assert_eq!(closed["message"], json!({"connection_uuid": uuid, "reason": "vehicle-lost"}));
    operator.ask("openChannel", "1", json!({"connection_uuid": uuid, "channel": 1})).await;
    operator.refused(403, "not-joined", "openChannel").await;
    operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
    open(&mut connector, &uuid).await;
    operator.hear("connectionJoined").await;
}

#[tokio::test]
async fn an_operator_may_close_its_connection() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    operator.ask("closeConnection", "1", json!({"connection_uuid": uuid})).await;
    let request = connector.hear("closeConnection").await;
    connector.reply(&request, "connectionClosed", json!({"connection_uuid": uuid, "reason": "closed"})).await;
    assert_eq!(operator.hear("connectionClosed").await["request_id"], "1");
}

#[tokio::test]
async fn every_end_of_a_ticket_closes_its_connection_at_both_sides() {
    for kind in ["complete", "cancel", "outsource"] {
        let rig = Rig::start().await;
        let mut connector = rig.connector(json!([])).await;
        let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
        let uuid = &ticket["connection_uuid"];
        open(&mut connector, uuid).await;
        let mut operator = rig.operator().await;
        operator.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
        operator.hear("connectionJoined").await;
        assert_eq!(rig.transition(&ticket, kind).await.status, 303);
        assert_eq!(operator.hear("connectionClosed").await["message"]["reason"], "closed");
        assert_eq!(&connector.hear("closeConnection").await["message"]["connection_uuid"], uuid);
        operator.ask("joinConnection", "2", json!({"connection_uuid": uuid})).await;
        operator.refused(404, "unknown-connection", "joinConnection").await;
    }
}

#[tokio::test]
async fn a_connection_without_a_ticket_is_closed_when_the_connector_returns() {
    let (rig, connector, uuid) = opened().await;
    connector.close().await;
    let token = rig.operator_token().await;
    let tickets = rig.get(&token, "/sandbox/v2/tickets/in-progress-tickets").await.expect(200);
    assert_eq!(rig.transition(&tickets["result"][0], "cancel").await.status, 303);
    let mut connector = rig.connector(json!([{"connection_uuid": uuid, "received": 0}])).await;
    assert_eq!(connector.hear("closeConnection").await["message"]["connection_uuid"], uuid);
}

#[tokio::test]
async fn a_second_link_of_a_connector_replaces_the_first() {
    let (rig, mut first, mut operator, uuid) = joined().await;
    let mut second = rig.connector(json!([{"connection_uuid": uuid, "received": 0}])).await;
    assert_eq!(u16::from(first.closed().await.unwrap().code), 4001);
    operator.hear("connectionInterrupted").await;
    operator.hear("connectionResumed").await;
    operator.ask("resumeConnection", "1", json!({"connection_uuid": uuid, "received": 0})).await;
    let request = second.hear("resumeConnection").await;
    second.reply(&request, "connectionResumed", json!({"connection_uuid": uuid, "received": 0})).await;
    operator.hear("connectionResumed").await;
    second.binary(b"second".to_vec()).await;
    assert_eq!(operator.next_binary().await, b"second");
}

#[tokio::test]
async fn a_connection_outlives_a_restart_of_the_cloud() {
    let (rig, connector, operator, uuid) = joined().await;
    drop((connector, operator));
    let rig = rig.restart(|_| {}).await;
    let mut connector = rig.connector(json!([{"connection_uuid": uuid, "received": 11}])).await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": uuid, "received": 4})).await;
    operator.hear("connectionJoined").await;
    assert_eq!(connector.hear("resumeConnection").await["message"]["received"], 4);
}

#[tokio::test]
async fn forbidden_actions_of_an_operator_are_refused() {
    let (rig, mut connector, mut operator, uuid) = joined().await;
    operator.ask("openConnection", "1", json!({"connection_uuid": uuid})).await;
    operator.refused(403, "forbidden", "openConnection").await;
    operator.ask("reboot", "2", json!({})).await;
    operator.refused(404, "unknown-action", "reboot").await;
    operator.ask("openChannel", "3", json!({"channel": 1})).await;
    operator.refused(400, "violations", "openChannel").await;
    operator.ask("joinConnection", "4", json!({"connection_uuid": "x"})).await;
    operator.refused(400, "violations", "joinConnection").await;
    operator.ask("joinConnection", "5", json!({"connection_uuid": uuid::Uuid::new_v4()})).await;
    operator.refused(404, "unknown-connection", "joinConnection").await;
    operator.text("not json").await;
    assert_eq!(operator.hear("error").await["message"]["type"], "/problems/malformed");

    // another socket of the same operator has not joined
    let mut other = rig.operator().await;
    other.ask("openChannel", "1", json!({"connection_uuid": uuid, "channel": 1})).await;
    other.refused(403, "not-joined", "openChannel").await;
    other.ask("identifyVehicle", "2", json!({})).await;
    other.refused(403, "not-joined", "identifyVehicle").await;
    other.binary(b"not mine".to_vec()).await;
    let mut customer = rig.socket(&rig.customer_token().await).await;
    customer.ask("joinConnection", "1", json!({"connection_uuid": uuid})).await;
    customer.refused(403, "forbidden", "joinConnection").await;
    customer.ask("openChannel", "2", json!({"connection_uuid": uuid, "channel": 1})).await;
    customer.refused(404, "unknown-action", "openChannel").await;

    // none of it reached the connector
    operator.ask("identifyVehicle", "6", json!({})).await;
    connector.hear("identifyVehicle").await;
}

#[tokio::test]
async fn a_connector_with_an_invalid_hello_is_refused_and_disconnected() {
    let rig = Rig::start().await;
    let token = rig.connector_token().await;
    let change = |field: &str, value: Value| {
        let mut hello = rig.hello(json!([]));
        hello[field] = value;
        hello
    };
    let cases = [
        (change("connector_uuid", json!(uuid::Uuid::new_v4())), 403, "forbidden"),
        (change("protocol", json!(2)), 400, "unsupported-protocol"),
        (change("connections", json!(5)), 400, "violations"),
    ];
    for (hello, status, slug) in cases {
        let mut socket = rig.socket(&token).await;
        socket.say("connectorHello", hello).await;
        socket.refused(status, slug, "connectorHello").await;
        assert_eq!(u16::from(socket.closed().await.unwrap().code), 1008);
    }
    let mut socket = rig.socket(&token).await;
    socket.ask("connectorStatusUpdate", "1", json!({"connector_id": rig.cloud.connector_uuid})).await;
    socket.refused(409, "hello-first", "connectorStatusUpdate").await;
    let mut operator = rig.operator().await;
    operator.say("connectorHello", rig.hello(json!([]))).await;
    operator.refused(403, "forbidden", "connectorHello").await;
}

#[tokio::test]
async fn one_operators_socket_relays_two_connectors_simultaneously() {
    use connector_sim::cloud::ConnectorSeed;
    let seeds: Vec<_> = (0..2).map(|_| ConnectorSeed::new(uuid::Uuid::new_v4(), "4711")).collect();
    let uuids: Vec<_> = seeds.iter().map(|seed| seed.uuid).collect();
    let rig = Rig::start_with(|config| config.connectors = seeds).await;
    let mut operator = rig.operator().await;
    let customer = rig.customer_token().await;
    let mut peers = Vec::new();
    for uuid in uuids {
        let body = json!({"connector_uuid": uuid, "pincode": "4711"});
        let request = rig.request(reqwest::Method::POST, "/v2/authenticate/pincode").json(&body);
        let login = rig.answer(request).await.expect(200);
        let token = login["access_token"].as_str().unwrap();
        let mut connector = rig.socket(token).await;
        let mut hello = rig.hello(json!([]));
        hello["connector_uuid"] = json!(uuid);
        connector.say("connectorHello", hello).await;
        let record = rig.get(token, &format!("/sandbox/v1/connectors/uuid/{uuid}")).await.expect(200);
        let mut body = rig.ticket_body(None);
        body["connector_id"] = record["id"].clone();
        let ticket = rig.join(&rig.post(&customer, "/sandbox/v1/tickets", body).await.expect(201)).await;
        let connection = ticket["connection_uuid"].clone();
        open(&mut connector, &connection).await;
        operator.ask("joinConnection", "1", json!({"connection_uuid": connection})).await;
        operator.hear("connectionJoined").await;
        let tag: uuid::Uuid = connection.as_str().unwrap().parse().unwrap();
        peers.push((connector, tag));
    }
    for (connector, tag) in &mut peers {
        let mut message = vec![1, 0, 0, 0];
        message.extend_from_slice(&tag.as_bytes()[..4]);
        operator.binary(message.clone()).await;
        assert_eq!(connector.next_binary().await, message);
        connector.binary(message.clone()).await;
        assert_eq!(operator.next_binary().await, message);
    }
}

#[tokio::test]
async fn pings_are_answered_while_the_operator_does_not_read() {
    let (_rig, mut connector, _operator, _) = joined().await;
    // less than the cloud keeps for an operator, so that the connector's link is not blocked
    for _ in 0..40 {
        connector.binary(vec![0; 64 * 1024]).await;
    }
    connector.notice().await;
    connector.ping().await;
    assert!(matches!(connector.raw().await, Message::Pong(_)));
}

#[tokio::test]
async fn a_connector_that_does_not_come_back_loses_the_connection_after_the_hold() {
    let (_rig, connector, mut operator, _) = joined().await;
    drop(connector);
    operator.hear("connectionInterrupted").await;
    operator.patience = Duration::from_secs(300);
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    assert_eq!(operator.hear("connectionClosed").await["message"]["reason"], "link-lost");
    let took = begin.elapsed();
    assert!((Duration::from_secs(44)..=Duration::from_secs(46)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_request_that_the_connector_never_answers_times_out() {
    let (_rig, mut connector, mut operator, uuid) = joined().await;
    operator.ask("openChannel", "1", json!({"connection_uuid": uuid, "channel": 1})).await;
    connector.hear("openChannel").await;
    operator.patience = Duration::from_secs(300);
    tokio::time::pause();
    let error = tokio::select! {
        error = operator.refused(504, "timeout", "openChannel") => error,
        () = async { loop {
            connector.ping().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }} => unreachable!(),
    };
    assert_eq!(error["request_id"], "1");
}
