//! Attachments of a channel: names, and uploads that are not the whole content.

use crate::cloud_support::Rig;
use reqwest::Method;
use serde_json::json;

/// A customer's token, and the path of the attachments of a ticket's channel.
async fn channel(rig: &Rig) -> (String, String) {
    let ticket = rig.pending(None).await;
    let path = format!("/v1/channel-attachments?channel_id={}", ticket["chat_id"].as_str().unwrap());
    (rig.customer_token().await, path)
}

#[tokio::test]
async fn the_name_of_an_attachment_leads_nowhere_and_hides_nothing() {
    let rig = Rig::start().await;
    let (token, path) = channel(&rig).await;
    for (given, stored) in [
        ("a b.txt", "a b.txt"),
        ("../../etc/passwd", ".._.._etc_passwd"),
        ("a\\b", "a_b"),
        (".", "_"),
        ("..", "__"),
        ("a\0b\r\n", "a_b__"),
        ("exe.\u{202e}txt", "exe._txt"),
        ("\u{2066}ä\u{200b}", "_ä_"),
    ] {
        let made = rig.post(&token, &path, json!({"file_name": given})).await.expect(201);
        assert_eq!(made["file_name"], stored);
        let reference = made["file_reference"].as_str().unwrap();
        let query: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("file_reference", reference).finish();
        assert_eq!(rig.get(&token, &format!("{path}&{query}")).await.expect(200), made);
    }
}

#[tokio::test]
async fn a_part_of_an_attachment_and_a_form_are_refused_and_change_nothing() {
    let rig = Rig::start().await;
    let (token, path) = channel(&rig).await;
    let made = rig.post(&token, &path, json!({"file_name": "a.txt"})).await;
    let upload = made.headers["sandbox-upload-url"].to_str().unwrap().to_owned();
    let put = |content: &'static str| rig.request(Method::PUT, &upload).body(content);
    assert_eq!(rig.answer(put("whole")).await.status, 204);
    let part = put("le").header("content-range", "bytes 3-4/5");
    rig.answer(part).await.problem(400, "bad-request");
    for kind in
        ["multipart/form-data; boundary=x", "Multipart/Form-Data", "application/x-www-form-urlencoded"]
    {
        let form = put("--x\r\nno end").header("content-type", kind);
        rig.answer(form).await.problem(415, "unsupported-media-type");
    }
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("file_reference", made.body["file_reference"].as_str().unwrap())
        .finish();
    let found = rig.get(&token, &format!("{path}&{query}")).await;
    let download = found.headers["sandbox-download-url"].to_str().unwrap().to_owned();
    assert_eq!(rig.get(&token, &download).await.body, "whole");
}
