//! A DoIP tool that uses the agent's codec.

use std::net::SocketAddr;

use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder, decode_datagram};
use connector_agent::protocol::doip::{
    ActivationCode, ActivationRequest, ActivationType, DiagnosticMessage, LogicalAddress, Message, Payload,
    ProtocolVersion,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::HANG;

const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);

fn message(payload: impl Into<Payload>) -> Vec<u8> {
    Message::new(ProtocolVersion::V2012, payload).encode().unwrap()
}

/// An address in the line that a simulator prints when it is ready.
pub fn address(ready: &Value, pointer: &str) -> SocketAddr {
    ready.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{ready}")).parse().unwrap()
}

/// Sends a datagram, and returns the entity's answer.
pub async fn ask_by_udp(to: SocketAddr, payload: Payload) -> Payload {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&message(payload), to).await.unwrap();
    let mut buffer = [0; 256];
    let length = timeout(HANG, socket.recv(&mut buffer)).await.unwrap().unwrap();
    decode_datagram(buffer.get(..length).unwrap()).unwrap().payload
}

pub struct DoipTool {
    stream: TcpStream,
    decoder: StreamDecoder,
}

impl DoipTool {
    pub async fn connect(to: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(to).await.unwrap(), decoder: StreamDecoder::new(1 << 20) }
    }

    /// A tool whose routing is active.
    pub async fn activated(to: SocketAddr) -> Self {
        let mut tool = Self::connect(to).await;
        assert_eq!(tool.activate().await, ActivationCode::Activated);
        tool
    }

    pub async fn activate(&mut self) -> ActivationCode {
        let activation_type = ActivationType::Default;
        self.say(ActivationRequest { source: TESTER, activation_type, oem: None }).await;
        match self.hear().await {
            Payload::ActivationResponse(response) => response.code,
            other => panic!("{other:?}"),
        }
    }

    async fn say(&mut self, payload: impl Into<Payload>) {
        self.stream.write_all(&message(payload)).await.unwrap();
    }

    pub async fn hear(&mut self) -> Payload {
        loop {
            if let Some(Decoded::Message(message)) = self.decoder.poll_message().unwrap() {
                return message.payload;
            }
            let mut buffer = [0; 4096];
            let length = timeout(HANG, self.stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(length > 0, "the entity has closed the connection");
            self.decoder.handle_bytes(buffer.get(..length).unwrap());
        }
    }

    /// Sends a request, waits for its acknowledgement, and returns the final response.
    pub async fn ask(&mut self, target: u16, request: &[u8]) -> Vec<u8> {
        let target = LogicalAddress::new(target);
        self.say(DiagnosticMessage { source: TESTER, target, data: request.to_vec() }).await;
        assert!(matches!(self.hear().await, Payload::DiagnosticAck(ack) if ack.source == target));
        loop {
            let Payload::Diagnostic(response) = self.hear().await else { panic!("no response") };
            assert_eq!((response.source, response.target), (target, TESTER));
            if !matches!(response.data.as_slice(), [0x7F, _, 0x78]) {
                return response.data;
            }
        }
    }
}
