//! Controls that the connector's button answers.

use connector_hal::board::Led;
use connector_test_support::agent::{TestAgent, bus};

use super::dialogue::Dialogue;
use super::*;

/// How long the button is held, or released.
const PRESS: Duration = Duration::from_millis(600);

fn settings(button: bool, policy: Value) -> AgentSettings {
    let policy = serde_json::from_value(policy).unwrap();
    AgentSettings { button, policy: Some(policy), ..AgentSettings::default() }
}

/// A script that shows controls, on this connector.
async fn shows_controls(
    mut command: Command,
    sandbox: &Sandbox,
    connector: &Connector,
    vin: Option<&str>,
) -> (TestGateway, Dialogue) {
    let answers = Some(json!({"Prepared": "", "Sure?": true}));
    let gateway = TestGateway::start_with(sandbox, answers, None, |settings| settings.button = true).await;
    let job = job(sandbox, &gateway, connector, vin).await;
    let mut script = Dialogue::start(&mut command, &job);
    assert_eq!(script.hears().await, json!({"without the button": [null, null, true]}));
    (gateway, script)
}

/// Waits until LED and buzzer ask the person at the vehicle.
async fn asks(rig: &Rig) {
    rig.agent.sees_led("the question", |led| matches!(led, Led::Flashes { count: 3, .. })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mechanic_continues_a_script_with_the_connectors_button() {
    let Some(command) = script("button").await else { return };
    let settings = settings(true, json!({"require": {"intrusive": ["consent"]}}));
    let rig = Rig::start_in(Sandbox::start(1).await, "VOLKSWAGEN_GOLF_MK7", settings).await;
    let (_gateway, mut script) = shows_controls(command, &rig.sandbox, &rig.connector, rig.vin()).await;
    for number in 0..2 {
        script.says("show").await;
        asks(&rig).await;
        // a press that begins within half a second of the question does not count
        let mut is_pressed = false;
        let continued = loop {
            rig.agent.board.set_button(Some(is_pressed));
            is_pressed = !is_pressed;
            if let Ok(line) = tokio::time::timeout(PRESS, script.hears()).await {
                break line;
            }
        };
        rig.agent.board.set_button(Some(false));
        assert_eq!(continued, json!({"continued": number}));
    }
    // a press lets the script continue, and allows no more than before
    script.says("write").await;
    assert_eq!(script.hears().await, json!({"write": 7}));
    script.says("refuse").await;
    asks(&rig).await;
    rig.agent.board.set_button(Some(true));
    let refused = script.hears().await;
    assert_eq!(refused["refused"], 7, "{refused}");
    assert!(refused["sentence"].as_str().unwrap().contains("ended the connection"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_usable_button_a_control_to_continue_is_refused() {
    let needs_consent = json!({"require": {"read": ["consent"], "session": ["consent"]}});
    for (button, policy, sentence) in
        [(false, json!({}), "no button"), (true, needs_consent, "would also allow requests")]
    {
        let Some(command) = script("button").await else { return };
        let sandbox = Sandbox::start(1).await;
        let connector = &sandbox.connectors[0];
        let _agent = TestAgent::start(&sandbox, connector, &bus(), settings(button, policy));
        sandbox.portal(connector).await.sees_online().await;
        let (_gateway, mut script) = shows_controls(command, &sandbox, connector, None).await;
        script.says("refuse").await;
        let refused = script.hears().await;
        assert_eq!(refused["refused"], 9, "{refused}");
        assert!(refused["sentence"].as_str().unwrap().contains(sentence), "{refused}");
    }
}
