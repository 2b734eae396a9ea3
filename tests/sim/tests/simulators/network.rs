//! The effects of the bad network on bytes.

use std::io::ErrorKind;
use std::time::Duration;

use connector_sim::network::{BadNetwork, BadNetworkConfig, Conditions, Direction, Ended};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);

/// Two peers with the network between them.
fn connect(conditions: &Conditions, buffer: usize) -> (DuplexStream, DuplexStream, JoinHandle<Ended>) {
    let (client, near) = duplex(buffer);
    let (far, server) = duplex(buffer);
    let conditions = conditions.clone();
    let task = tokio::spawn(async move { conditions.carry(split(near), split(far)).await });
    (client, server, task)
}

#[tokio::test(start_paused = true)]
async fn every_byte_arrives_half_a_round_trip_later_in_order() {
    let conditions =
        Conditions::new(BadNetworkConfig { round_trip: 300 * MS, ..BadNetworkConfig::default() });
    let (mut client, mut server, _task) = connect(&conditions, 1 << 16);
    let start = Instant::now();
    for piece in 0..10_u8 {
        client.write_all(&[piece; 3]).await.unwrap();
        tokio::time::sleep(20 * MS).await;
    }
    for piece in 0..10_u8 {
        let mut bytes = [0; 3];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [piece; 3]);
        let expected = 20 * MS * u32::from(piece) + 150 * MS;
        let elapsed = start.elapsed().max(200 * MS);
        assert!(elapsed >= expected.max(200 * MS) && elapsed <= expected.max(200 * MS) + MS, "{elapsed:?}");
    }
    server.write_all(b"answer").await.unwrap();
    let asked = Instant::now();
    let mut answer = [0; 6];
    client.read_exact(&mut answer).await.unwrap();
    assert!(asked.elapsed() >= 150 * MS && asked.elapsed() <= 151 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_round_trip_lets_no_byte_overtake_another() {
    let conditions =
        Conditions::new(BadNetworkConfig { round_trip: 1000 * MS, ..BadNetworkConfig::default() });
    let (mut client, mut server, _task) = connect(&conditions, 1 << 16);
    client.write_all(b"first ").await.unwrap();
    tokio::time::sleep(10 * MS).await;
    conditions.set_round_trip(Duration::ZERO);
    client.write_all(b"second").await.unwrap();
    let mut bytes = [0; 12];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"first second");
}

#[tokio::test(start_paused = true)]
async fn a_connection_can_be_cut_after_any_byte_and_the_next_one_works() {
    let message: Vec<u8> = (0..200).collect();
    let conditions = Conditions::new(BadNetworkConfig { round_trip: 10 * MS, ..BadNetworkConfig::default() });
    for bytes in 1..=message.len() {
        conditions.cut_after(Direction::ToServer, bytes as u64);
        let (mut client, mut server, task) = connect(&conditions, 1 << 16);
        client.write_all(&message).await.unwrap();
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, message[..bytes], "cut after {bytes}");
        assert_eq!(task.await.unwrap(), Ended::Cut);

        let (mut client, mut server, task) = connect(&conditions, 1 << 16);
        client.write_all(&message).await.unwrap();
        client.shutdown().await.unwrap();
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, message);
        server.shutdown().await.unwrap();
        assert_eq!(task.await.unwrap(), Ended::Finished);
    }
    assert_eq!(conditions.statistics().cut, message.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_stall_holds_everything_back_and_loses_nothing() {
    let conditions = Conditions::new(BadNetworkConfig::default());
    let (mut client, mut server, _task) = connect(&conditions, 1 << 16);
    let start = Instant::now();
    conditions.stall(Duration::from_secs(7));
    client.write_all(b"held back").await.unwrap();
    let mut bytes = [0; 9];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"held back");
    assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_limited_line_carries_its_bytes_per_second() {
    let conditions =
        Conditions::new(BadNetworkConfig { bytes_per_second: Some(10_000), ..BadNetworkConfig::default() });
    let (mut client, mut server, _task) = connect(&conditions, 1 << 17);
    let start = Instant::now();
    let sent: Vec<u8> = (0..50_000_u32).map(|number| number as u8).collect();
    client.write_all(&sent).await.unwrap();
    let mut arrived = vec![0; sent.len()];
    server.read_exact(&mut arrived).await.unwrap();
    assert_eq!(arrived, sent);
    let elapsed = start.elapsed().as_secs_f64();
    assert!((4.9..5.6).contains(&elapsed), "{elapsed}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_holds_up_the_sender() {
    let conditions = Conditions::new(BadNetworkConfig::default());
    let (mut client, _server, _task) = connect(&conditions, 1 << 16);
    let piece = vec![0; 1 << 16];
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(60), client.write(&piece)).await {
        taken += written.unwrap();
        assert!(taken <= 8 << 20, "{taken} bytes are buffered");
    }
    assert!(taken >= 1 << 16);
}

#[tokio::test(start_paused = true)]
async fn regular_cuts_keep_their_interval_and_the_pause_after_them() {
    let conditions = Conditions::new(BadNetworkConfig {
        cut_every: Some(Duration::from_secs(5)),
        pause_after_cut: Duration::from_secs(2),
        ..BadNetworkConfig::default()
    });
    let start = Instant::now();
    for turn in 1..=3 {
        conditions.next_cut().await;
        assert_eq!(start.elapsed().as_secs(), 5 * turn);
        conditions.cut();
    }
    conditions.passable().await;
    assert_eq!(start.elapsed().as_secs(), 17);
}

/// An echo server behind a network.
async fn echo(config: BadNetworkConfig) -> BadNetwork {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    BadNetwork::start(target, config).await.unwrap()
}

#[tokio::test]
async fn over_tcp_a_cut_is_a_reset_and_a_new_connection_is_accepted() {
    let network = echo(BadNetworkConfig::default()).await;
    let mut stream = TcpStream::connect(network.address()).await.unwrap();
    stream.write_all(b"before").await.unwrap();
    let mut bytes = [0; 6];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"before");

    network.cut();
    let error = stream.read(&mut bytes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);

    let mut stream = TcpStream::connect(network.address()).await.unwrap();
    stream.write_all(b"after!").await.unwrap();
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"after!");
    assert_eq!((network.statistics().connections, network.statistics().cut), (2, 1));
}

#[tokio::test]
async fn over_tcp_a_megabyte_is_echoed_unchanged() {
    let network = echo(BadNetworkConfig { round_trip: 4 * MS, ..BadNetworkConfig::default() }).await;
    let sent: Vec<u8> =
        (0..1_u32 << 20).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let stream = TcpStream::connect(network.address()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut arrived = Vec::new();
    read.read_to_end(&mut arrived).await.unwrap();
    writing.await.unwrap();
    assert!(arrived == expected);
}
