//! The login and the REST resources, with a scripted cloud.

use std::time::Duration;

use crate::scripted::*;
use connector_agent::cloud::LoginState;
use connector_agent::cloud::rest::{ErrorChain, RestError};
use connector_agent::config::{NumberedPath, Pincode};
use secrecy::SecretString;

const LOGIN: &str = "POST /v2/authenticate/pincode";
const TOKEN: &str = "POST /oauth2/token";
const RECORD: &str = "GET /v2/connectors/5f3d760d-ade2-4a19-aea4-36e097678ae3";
/// The active ticket by the connector's number, and by its UUID.
const TICKET: &str = "GET /v1/connectors/4711/active-ticket";
const TICKET_BY_UUID: &str = "GET /v1/connectors/5f3d760d-ade2-4a19-aea4-36e097678ae3/active-ticket";
const DISMISS: &str =
    "POST /v2/connectors/5f3d760d-ade2-4a19-aea4-36e097678ae3/actions/dismiss-call-for-attention";
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn uuid_and_pincode_give_a_token_that_every_request_bears() {
    let server = Server::start(|request, _| match request.line.as_str() {
        LOGIN => Reply::tokens(1),
        RECORD => Reply::new(200, format!(r#"{{"id":4711,"uuid":"{UUID}","hardware_version":2}}"#)),
        TICKET => Reply::new(200, format!(r#"{{"id":"9","uuid":"{UUID}"}}"#)),
        DISMISS => Reply::new(204, ""),
        _ => Reply::new(500, ""),
    })
    .await;
    let cloud = cloud(&server.config());
    assert_eq!(soon(cloud.connector()).await.unwrap().id, Some(4711));
    let ticket = soon(cloud.active_ticket()).await.unwrap().unwrap();
    assert_eq!(ticket.uuid, Some(UUID.parse().unwrap()));
    soon(cloud.dismiss_call_for_attention()).await.unwrap();
    let requests = server.requests();
    assert_eq!(
        requests.iter().map(|request| request.line.as_str()).collect::<Vec<_>>(),
        [LOGIN, RECORD, TICKET, DISMISS]
    );
    assert_eq!(requests[0].body, format!(r#"{{"connector_uuid":"{UUID}","pincode":"{PINCODE}"}}"#));
    assert_eq!(requests[0].content_type.as_deref(), Some("application/json"));
    assert_eq!(requests[0].authorization, None);
    assert!(requests[1..].iter().all(|request| request.authorization.as_deref() == Some("Bearer access-1")));
}

#[tokio::test]
async fn only_a_404_of_its_type_and_a_204_mean_that_no_ticket_is_active() {
    let server = Server::start(|request, before| match (request.line.as_str(), before) {
        (LOGIN, _) => Reply::tokens(1),
        (RECORD, _) => Reply::new(200, r#"{"id":4711}"#),
        (_, 0) => Reply::new(404, r#"{"type":"/problems/no-active-ticket","status":404}"#),
        _ => Reply::new(204, ""),
    })
    .await;
    let cloud = cloud(&server.config());
    for _ in 0..2 {
        assert_eq!(soon(cloud.active_ticket()).await.unwrap(), None);
    }
    assert_eq!((server.count(TICKET), server.count(RECORD)), (2, 1));
}

#[tokio::test]
async fn an_answer_without_a_ticket_in_it_is_an_error_and_no_absence() {
    const BODIES: [&str; 7] =
        ["{}", "[]", "null", r#"{"result":[]}"#, r#"{"state":7}"#, r#"{"id":null}"#, "5"];
    let server = Server::start(|request, before| match request.line.as_str() {
        LOGIN => Reply::tokens(1),
        RECORD => Reply::new(200, r#"{"id":4711}"#),
        _ => Reply::new(200, BODIES[before]),
    })
    .await;
    let cloud = cloud(&server.config());
    for body in BODIES {
        let answer = soon(cloud.active_ticket()).await;
        assert!(matches!(answer, Err(RestError::NotATicket(_))), "{body}: {answer:?}");
    }
}

#[tokio::test]
async fn without_a_record_the_active_ticket_is_asked_for_by_uuid() {
    let server = Server::start(|request, _| match request.line.as_str() {
        LOGIN => Reply::tokens(1),
        TICKET_BY_UUID => Reply::new(200, r#"{"id":"3","state":1}"#),
        _ => Reply::new(404, ""),
    })
    .await;
    let ticket = soon(cloud(&server.config()).active_ticket()).await.unwrap().unwrap();
    assert_eq!((ticket.number.as_deref(), ticket.state.as_deref()), (Some("3"), Some("1")));
    let mut config = server.config();
    config.paths.active_ticket = NumberedPath::try_from("/x/{id}/{uuid}".to_owned()).unwrap();
    assert!(soon(cloud(&config).active_ticket()).await.is_err());
    assert_eq!(server.count(&format!("GET /x/{UUID}/{UUID}")), 1);
}

#[tokio::test]
async fn a_cloud_that_refuses_the_number_of_the_connector_is_asked_by_uuid() {
    for status in [400, 404] {
        let server = Server::start(move |request, _| match request.line.as_str() {
            LOGIN => Reply::tokens(1),
            RECORD => Reply::new(200, r#"{"id":4711}"#),
            TICKET => Reply::new(status, r#"{"type":"/problems/violations","title":"Bad request"}"#),
            TICKET_BY_UUID => Reply::new(200, r#"{"id":"3","state":1}"#),
            _ => Reply::new(500, ""),
        })
        .await;
        let ticket = soon(cloud(&server.config()).active_ticket()).await.unwrap().unwrap();
        assert_eq!(ticket.number.as_deref(), Some("3"));
        assert_eq!((server.count(TICKET), server.count(TICKET_BY_UUID)), (1, 1));
        // a path without the number is asked once
        let mut config = server.config();
        config.paths.active_ticket =
            NumberedPath::try_from("/v1/connectors/4711/active-ticket".to_owned()).unwrap();
        assert!(soon(cloud(&config).active_ticket()).await.is_err());
        assert_eq!((server.count(TICKET), server.count(TICKET_BY_UUID)), (2, 1));
    }
}

#[tokio::test]
async fn without_the_ticket_resource_the_request_is_an_error() {
    let server = Server::start(|request, before| match (request.line.as_str(), before) {
        (LOGIN, _) => Reply::tokens(1),
        (RECORD, _) => Reply::new(200, r#"{"id":4711}"#),
        (_, 0) => Reply::new(404, r#"{"type":"/problems/not-found","status":404}"#),
        _ => Reply::new(404, "404: Not Found"),
    })
    .await;
    let cloud = cloud(&server.config());
    for _ in 0..2 {
        let error = soon(cloud.active_ticket()).await.unwrap_err();
        assert!(matches!(error, RestError::Refused { status: 404, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_token_refused_to_many_requests_causes_one_login() {
    let server = Server::start(|request, before| match request.line.as_str() {
        LOGIN => Reply::tokens(before + 1),
        _ if request.authorization.as_deref() == Some("Bearer access-2") => {
            Reply::new(200, r#"{"uuid":"5f3d760d-ade2-4a19-aea4-36e097678ae3"}"#)
        }
        _ => Reply::new(401, "{}"),
    })
    .await;
    let cloud = cloud(&server.config());
    let calls = async {
        tokio::join!(cloud.connector(), cloud.active_ticket(), cloud.connector(), cloud.active_ticket())
    };
    let (a, b, c, d) = soon(calls).await;
    assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
    assert_eq!(server.count(LOGIN), 2);
    // a question for the ticket asks for the record first, as long as the record names no number
    assert_eq!(server.requests().len(), 2 + 4 + 6);
}

#[tokio::test]
async fn a_resource_that_refuses_the_new_token_too_is_an_error_and_not_a_loop() {
    let server = Server::start(|request, before| match request.line.as_str() {
        LOGIN => Reply::tokens(before + 1),
        _ => Reply::new(401, r#"{"title":"Unauthorized","detail":"no"}"#),
    })
    .await;
    let error = soon(cloud(&server.config()).connector()).await.unwrap_err();
    assert!(error.needs_login());
    assert_eq!(error.to_string(), "the cloud answered 401 (Unauthorized: no)");
    assert_eq!((server.count(LOGIN), server.count(RECORD)), (2, 2));
}

#[tokio::test]
async fn a_wrong_pincode_is_logged_once_and_tried_again_after_a_minute() {
    let log = Log::capture();
    let server = Server::start(|_, _| Reply::new(401, r#"{"title":"Unauthorized","detail":"wrong"}"#)).await;
    let authenticator = authenticator(&server.config());
    let mut status = authenticator.status();
    soon(status.wait_for(|status| status.login == LoginState::Rejected)).await.unwrap();
    log.has("next attempt in", 1).await;
    pass(MINUTE - Duration::from_secs(2)).await;
    assert_eq!(server.count(LOGIN), 1, "no login before the minute is over");
    for (attempt, minutes) in [(2, 1), (3, 2), (4, 4)] {
        pass(minutes * MINUTE).await;
        log.has("next attempt in", attempt).await;
        assert_eq!(server.count(LOGIN), attempt);
    }
    assert_eq!(log.count("WARN"), 1, "{}", log.text());
    assert!(log.text().contains("does not accept this connector's UUID and pincode"), "{}", log.text());
}

#[tokio::test]
async fn a_token_is_refreshed_before_expiry_or_replaced_by_a_login() {
    let server = Server::start(|request, before| match (request.line.as_str(), before) {
        (LOGIN, before) => Reply::tokens(10 * (before + 1)),
        (TOKEN, 0) => Reply::tokens(11),
        (TOKEN, _) => Reply::new(400, r#"{"error":"invalid_grant"}"#),
        _ => Reply::new(200, "{}"),
    })
    .await;
    let mut config = server.config();
    config.client_id = Some("connector 1".to_owned());
    let rest = rest(&config);
    let authenticator =
        connector_agent::cloud::login::Authenticator::spawn(rest.clone(), Pincode::new(PINCODE).unwrap(), 1);
    let bearer = async || {
        let token = soon(authenticator.token()).await;
        soon(rest.connector(&token)).await.unwrap();
        server.requests().last().unwrap().authorization.clone().unwrap()
    };
    assert_eq!(bearer().await, "Bearer access-10");
    for expected in ["Bearer access-11", "Bearer access-20"] {
        let token = authenticator.token().await;
        pass(55 * MINUTE).await;
        soon(async {
            while format!("{:?}", authenticator.token().await) == format!("{token:?}") {
                tokio::task::yield_now().await
            }
        })
        .await;
        assert_eq!(bearer().await, expected);
    }
    let refreshes: Vec<_> = server.requests().into_iter().filter(|request| request.line == TOKEN).collect();
    assert_eq!(
        refreshes[0].body,
        "grant_type=refresh_token&refresh_token=refresh-10%2B%2F%3D%26&client_id=connector%201"
    );
    assert_eq!(refreshes[0].content_type.as_deref(), Some("application/x-www-form-urlencoded"));
    assert!(refreshes[1].body.contains("refresh-11"));
}

#[tokio::test]
async fn retry_after_is_honoured_by_logins_and_by_requests() {
    let log = Log::capture();
    let server = Server::start(|request, before| match (request.line.as_str(), before) {
        (LOGIN, 0) => Reply::new(429, "").with("retry-after", "300"),
        (LOGIN, _) => Reply::tokens(1),
        (_, 0) => Reply::new(503, "")
            .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .with("retry-after", "Sun, 06 Nov 1994 08:59:37 GMT"),
        _ => Reply::new(200, "{}"),
    })
    .await;
    let cloud = cloud(&server.config());
    let call = tokio::spawn(async move { cloud.connector().await });
    for (line, message, seconds) in [(LOGIN, "next attempt in", 300), (RECORD, "trying again in", 600)] {
        log.has(message, 1).await;
        pass(Duration::from_secs(seconds - 5)).await;
        assert_eq!(server.count(line), 1, "{line} before its time");
        // up to a fifth is added at random
        pass(Duration::from_secs(seconds / 5 + 6)).await;
    }
    soon(call).await.unwrap().unwrap();
    assert_eq!((server.count(LOGIN), server.count(RECORD)), (2, 2));
}

#[tokio::test]
async fn retry_after_of_a_401_or_403_is_honoured_by_logins_and_by_requests() {
    let log = Log::capture();
    let server = Server::start(|request, before| match (request.line.as_str(), before) {
        (LOGIN, 0) => Reply::new(401, "").with("retry-after", "300"),
        (LOGIN, 1) => Reply::new(403, "")
            .with("date", "Sun, 06 Nov 1994 08:49:37 GMT")
            .with("retry-after", "Sun, 06 Nov 1994 08:59:37 GMT"),
        (LOGIN, before) => Reply::tokens(before),
        (_, 0) => Reply::new(401, "").with("retry-after", "200"),
        (_, 1) => Reply::new(403, "").with("retry-after", "100"),
        _ => Reply::new(200, "{}"),
    })
    .await;
    let cloud = cloud(&server.config());
    let call = tokio::spawn(async move { cloud.connector().await });
    for (line, message, count, seconds) in [
        (LOGIN, "next attempt in", 1, 300),
        (LOGIN, "next attempt in", 2, 600),
        (RECORD, "trying again in", 1, 200),
        (RECORD, "trying again in", 2, 100),
    ] {
        log.has(message, count).await;
        pass(Duration::from_secs(seconds - 5)).await;
        assert_eq!(server.count(line), count, "{line} before its time");
        // up to a fifth is added at random
        pass(Duration::from_secs(seconds / 5 + 6)).await;
    }
    soon(call).await.unwrap().unwrap();
    assert_eq!(server.count(RECORD), 3);
}

#[tokio::test]
async fn an_invalid_answer_is_an_error_and_a_redirect_is_not_followed() {
    let huge = "x".repeat(300 << 10);
    let chunked = format!("{:x}\r\n{huge}\r\n0\r\n\r\n", huge.len());
    let server = Server::start(move |_, before| match before {
        0 => Reply::new(200, huge.clone()),
        1 => Reply::new(200, chunked.clone()).with("transfer-encoding", "chunked"),
        2 => Reply::new(200, "no json"),
        3 => Reply::new(200, r#"{"access_token":94571}"#),
        4 => Reply::new(307, "").with("location", "http://127.0.0.1:1/elsewhere"),
        5 => Reply::new(500, "<html>"),
        6 => Reply::new(200, "{}").with("content-encoding", "gzip"),
        _ => Reply::new(403, r#"{"type":"/problems/x","title":"Forbidden","status":403,"detail":"because"}"#),
    })
    .await;
    let rest = rest(&server.config());
    let pincode = Pincode::new(PINCODE).unwrap();
    let mut errors = Vec::new();
    for _ in 0..8 {
        errors.push(soon(rest.log_in(&pincode)).await.unwrap_err());
    }
    assert!(matches!(errors[0], RestError::TooLong { limit: 262_144 }), "{:?}", errors[0]);
    assert!(matches!(errors[1], RestError::TooLong { .. }), "{:?}", errors[1]);
    assert!(matches!(errors[2], RestError::Malformed { line: 1, .. }), "{:?}", errors[2]);
    assert!(matches!(errors[3], RestError::Malformed { .. }), "{:?}", errors[3]);
    assert!(matches!(errors[4], RestError::Refused { status: 307, .. }), "{:?}", errors[4]);
    assert!(matches!(errors[5], RestError::Refused { status: 500, problem: None, .. }), "{:?}", errors[5]);
    assert!(matches!(errors[6], RestError::Malformed { .. }), "{:?}", errors[6]);
    assert_eq!(errors[7].to_string(), "the cloud answered 403 (Forbidden: because)");
}

#[tokio::test]
async fn no_log_and_no_error_contains_the_pincode_or_tokens_that_the_cloud_echoes() {
    let log = Log::capture();
    let server = Server::start(|request, before| {
        let echo = format!("{} {}", request.body, request.authorization.as_deref().unwrap_or_default());
        let echo = echo.replace('"', "'");
        match (request.line.as_str(), before) {
            (LOGIN, 0) => Reply::new(503, format!(r#"{{"title":"{echo}","detail":"{echo}"}}"#)),
            (LOGIN, before) => Reply::tokens(before),
            _ => Reply::new(400, format!(r#"{{"title":"{echo}","detail":"{echo}","type":"{echo}"}}"#)),
        }
    })
    .await;
    let cloud = cloud(&server.config());
    let retry = async {
        log.has("next attempt in", 1).await;
        pass(MINUTE).await;
    };
    let (refused, ()) = tokio::join!(cloud.connector(), retry);
    let error = refused.unwrap_err();
    let rest = rest(&server.config());
    let refused = soon(rest.refresh(&SecretString::from("refresh-7"))).await.unwrap_err();
    let output =
        format!("{error} {error:?} {refused} {refused:?} {} {} {cloud:?}", ErrorChain(&error), log.text());
    assert!(output.contains("logged in") && output.contains("503"), "the log is captured: {output}");
    for secret in [PINCODE, "access-1", "refresh-1", "refresh-7"] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
}

#[tokio::test]
async fn a_cloud_whose_certificate_is_from_the_configured_authority_is_trusted() {
    let authority = Authority::new();
    let server =
        Server::start_with(Some(authority.acceptor.clone()), |request, _| match request.line.as_str() {
            LOGIN => Reply::tokens(1),
            _ => Reply::new(200, r#"{"id":3}"#),
        })
        .await;
    let mut config = server.config();
    config.ca_file = Some(authority.ca_file.clone());
    assert_eq!(soon(cloud(&config).connector()).await.unwrap().id, Some(3));
}

#[tokio::test]
async fn a_cloud_with_an_untrusted_certificate_receives_no_request() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start_with(Some(authority.acceptor.clone()), |_, _| Reply::tokens(1)).await;
    for ca_file in [None, Some(other.ca_file.clone())] {
        let mut config = server.config();
        config.ca_file = ca_file;
        let error = soon(rest(&config).log_in(&Pincode::new(PINCODE).unwrap())).await.unwrap_err();
        assert!(error.is_transient());
        let output = ErrorChain(&error).to_string();
        assert!(output.contains("invalid peer certificate"), "{output}");
    }
    assert_eq!(server.requests(), []);
}

#[tokio::test]
async fn a_missing_cloud_is_unreachable_and_tried_again() {
    let log = Log::capture();
    let config = cloud_config("http://127.0.0.1:9", "ws://127.0.0.1:9");
    let authenticator = authenticator(&config);
    let mut status = authenticator.status();
    soon(status.wait_for(|status| status.login == LoginState::Unreachable)).await.unwrap();
    assert!(log.text().contains("Connection refused"), "{}", log.text());
}
