//! can-utils as peers. `candump` and `cansend` exchange frames with the agent's CAN socket, `isotpsend` and
//! `isotprecv` exchange PDUs with the agent's ISO-TP.
//!
//! Needs can-utils (`CONNECTOR_TEST_CAN_UTILS`, any value) and a vcan interface that is up, with CAN FD
//! (`CONNECTOR_TEST_VCAN`), on a kernel that has can-isotp. Without them, the tests print one line `SKIPPED:
//! …` and pass.

use std::process::Stdio;

use connector_agent::protocol::isotp::{Addressing, Event, FrameSize, Padding};
use connector_hal::can::{CanBusExt, CanEvent, CanFrame, CanId, FdFlags, open};
use connector_test_support::isotp::{AgentEndpoint, PATIENCE, SETTINGS, config, modes};
use connector_test_support::skip::environment;
use connector_test_support::{id, pdu};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

fn interface() -> Option<String> {
    environment("CONNECTOR_TEST_CAN_UTILS")?;
    environment("CONNECTOR_TEST_VCAN")
}

fn frames() -> [CanFrame; 5] {
    let (short, long) = (id(0x7E0), CanId::extended(0x18DA_10F1).unwrap());
    let fast = FdFlags { bit_rate_switch: true, error_state: false };
    [
        CanFrame::new(short, &[]).unwrap(),
        CanFrame::new(long, &[1, 2, 3, 4, 5, 6, 7, 0xAB]).unwrap(),
        CanFrame::new_remote(id(0x123), 0).unwrap(),
        CanFrame::new_fd(short, fast, &[0xA5; 64]).unwrap(),
        CanFrame::new_fd(long, FdFlags::default(), &[9; 12]).unwrap(),
    ]
}

#[tokio::test]
async fn candump_shows_the_agents_frames() {
    let Some(vcan) = interface() else { return };
    let frames = frames();
    let dump = tool("candump").args(["-L", "-n", &frames.len().to_string(), &vcan]).spawn().unwrap();
    listens(&vcan, "rcvlist_all", "raw").await;
    let mut bus = open(&vcan).unwrap();
    bus.configure(SETTINGS).await.unwrap();
    for frame in &frames {
        bus.send(frame).await.unwrap();
    }
    let output = timeout(PATIENCE, dump.wait_with_output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // candump also shows the kernel's flag of an FD frame
    let masked = |frame: &str| frame.replace("##5", "##1").replace("##4", "##0");
    let seen: Vec<_> = text.lines().map(|line| masked(line.split(' ').nth(2).unwrap())).collect();
    assert_eq!(seen, frames.map(|frame| frame.to_string()));
}

#[tokio::test]
async fn the_agents_socket_receives_the_frames_of_cansend() {
    let Some(vcan) = interface() else { return };
    let mut bus = open(&vcan).unwrap();
    bus.configure(SETTINGS).await.unwrap();
    for frame in frames() {
        run(tool("cansend").args([&vcan, &frame.to_string()])).await;
        let event = timeout(PATIENCE, bus.event()).await.unwrap().unwrap();
        assert!(matches!(event, CanEvent::Received { frame: seen, .. } if seen == frame), "{event:?}");
    }
}

#[tokio::test]
async fn the_agents_endpoint_receives_the_pdus_of_isotpsend() {
    let Some(vcan) = interface() else { return };
    for ((name, addressing), frame_size) in cases() {
        for len in [1, 7, 8, 100, 4095] {
            let padding = Padding::Enabled(0xCC);
            let mut endpoint =
                AgentEndpoint::open(&vcan, config(addressing, (8, 0), frame_size, padding)).await;
            let pdu = pdu(len);
            let mut send = tool("isotpsend");
            let mut child = peer(&mut send, addressing, frame_size).arg(&vcan).spawn().unwrap();
            let hex: Vec<_> = pdu.iter().map(|byte| format!("{byte:02x}")).collect();
            child.stdin.take().unwrap().write_all(hex.join(" ").as_bytes()).await.unwrap();
            let address = addressing.receive_id();
            let case = format!("{name}, {frame_size:?}, {len} bytes");
            let started = timeout(PATIENCE, endpoint.event()).await.unwrap_or_else(|_| panic!("{case}"));
            assert_eq!(started, Event::ReceptionStarted { address }, "{case}");
            let received = timeout(PATIENCE, endpoint.event()).await.unwrap_or_else(|_| panic!("{case}"));
            assert!(received == Event::Received { address, pdu }, "{case}: {received:02X?}");
            assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success(), "{case}");
        }
    }
}

#[tokio::test]
async fn isotprecv_receives_the_pdus_of_the_agents_endpoint() {
    let Some(vcan) = interface() else { return };
    for ((name, addressing), frame_size) in cases() {
        for len in [1, 7, 8, 100, 4095] {
            let padding = Padding::Enabled(0xCC);
            let mut endpoint =
                AgentEndpoint::open(&vcan, config(addressing, (0, 0), frame_size, padding)).await;
            let pdu = pdu(len);
            let mut receive = tool("isotprecv");
            let receive =
                peer(&mut receive, addressing, frame_size).args(["-b", "8"]).arg(&vcan).spawn().unwrap();
            let list = if addressing.transmit_id().is_extended() { "rcvlist_eff" } else { "rcvlist_sff" };
            listens(&vcan, list, "isotp").await;
            reads(&receive).await;
            endpoint.send(&pdu);
            let case = format!("{name}, {frame_size:?}, {len} bytes");
            let sent = timeout(PATIENCE, endpoint.event()).await.unwrap_or_else(|_| panic!("{case}"));
            assert!(matches!(sent, Event::Sent { .. }), "{case}: {sent:?}");
            let output = timeout(PATIENCE, receive.wait_with_output()).await.unwrap().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let received: Vec<u8> =
                text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
            assert!(received == pdu, "{case}: {text}");
        }
    }
}

/// Every addressing mode with classic frames, and the first with FD ones.
fn cases() -> impl Iterator<Item = ((&'static str, Addressing), FrameSize)> {
    let fd = FrameSize::fd(64, true).unwrap();
    let classic = modes().into_iter().map(|mode| (mode, FrameSize::Classic));
    classic.chain([(modes()[0], fd)])
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command
}

/// Adds the arguments that make a tool the peer of the agent.
fn peer(tool: &mut Command, addressing: Addressing, frame_size: FrameSize) -> &mut Command {
    // the tools read an identifier of eight digits as one of 29 bits
    let number = |id: CanId| match id.is_extended() {
        true => format!("{:08X}", id.raw()),
        false => format!("{:03X}", id.raw()),
    };
    tool.args([
        "-s",
        &number(addressing.receive_id()),
        "-d",
        &number(addressing.transmit_id()),
        "-p",
        "AA:AA",
    ]);
    if let Some((transmit, receive)) = addressing.addresses() {
        tool.args(["-x", &format!("{receive:02X}:{transmit:02X}")]);
    }
    if frame_size != FrameSize::Classic {
        tool.args(["-L", "72:64:1"]);
    }
    tool
}

async fn run(tool: &mut Command) {
    let mut child: Child = tool.spawn().unwrap();
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
}

/// Waits until the kernel lists a listening socket of this protocol.
async fn listens(interface: &str, list: &str, protocol: &str) {
    let path = format!("/proc/net/can/{list}");
    let listens = async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            let is_it = |line: &str| {
                line.split_whitespace().next() == Some(interface)
                    && line.split_whitespace().last() == Some(protocol)
            };
            if text.lines().any(is_it) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, listens).await.unwrap_or_else(|_| panic!("no socket listens: {path}"));
}

/// Waits until a tool reads. A socket in the kernel's list may not yet be bound to its interface.
async fn reads(tool: &Child) {
    let path = format!("/proc/{}/syscall", tool.id().unwrap());
    let read = format!("{} ", libc::SYS_read);
    let reads = async {
        while !std::fs::read_to_string(&path).unwrap().starts_with(&read) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reads).await.unwrap_or_else(|_| panic!("the tool does not read: {path}"));
}
