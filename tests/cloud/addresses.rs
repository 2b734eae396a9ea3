//! How the cloud's addresses are tried, when some of them or the resolver are broken.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use connector_agent::cloud::dial::Dialer;
use connector_agent::cloud::rest::Rest;
use connector_agent::cloud::websocket::{CloudSocket, SocketEvent};
use connector_agent::config::Pincode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

use crate::link_rig::*;
use crate::scripted::*;

const IPV4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const IPV6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// What a broken address may cost.
const LIMIT: Duration = Duration::from_millis(300);

/// A port that accepts one connection, and then answers no attempt to connect, as behind a broken route.
struct Blackhole {
    listener: Socket,
    fill: Option<Socket>,
}

impl Blackhole {
    /// On a free port, if `port` is 0.
    fn new(address: IpAddr, port: u16) -> Self {
        let address = SockAddr::from(SocketAddr::new(address, port));
        let listener = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        if address.domain() == Domain::IPV6 {
            listener.set_only_v6(true).unwrap();
        }
        listener.bind(&address).unwrap();
        listener.listen(0).unwrap();
        Self { listener, fill: None }
    }

    /// Takes the only place in the queue of the listener.
    fn fill(mut self) -> Self {
        let address = self.listener.local_addr().unwrap();
        let fill = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        fill.connect(&address).unwrap();
        self.fill = Some(fill);
        self
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().as_socket().unwrap().port()
    }

    /// The connection, as soon as there is one.
    async fn accept(&self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let (stream, _) = loop {
            match self.listener.accept() {
                Ok(accepted) => break accepted,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.set_nonblocking(true).unwrap();
        TcpStream::from_std(stream.into()).unwrap()
    }
}

/// The resolver's answer about `cloud.test`; `None` if it never answers.
#[derive(Clone)]
struct Names(Arc<Mutex<Option<io::Result<Vec<IpAddr>>>>>);

impl Names {
    fn new(addresses: &[IpAddr]) -> Self {
        Self(Arc::new(Mutex::new(Some(Ok(addresses.to_vec())))))
    }

    fn set(&self, answer: Option<io::Result<Vec<IpAddr>>>) {
        *self.0.lock().unwrap() = answer;
    }

    fn dialer(&self, authority: &Authority) -> Dialer {
        let tls = connector_agent::tls::client_config(Some(&authority.ca_file)).unwrap();
        let names = self.0.clone();
        Dialer::new(tls).with_lookup(move |host| {
            assert_eq!(host, "cloud.test");
            let answer = match &*names.lock().unwrap() {
                Some(Ok(addresses)) => Some(Ok(addresses.clone())),
                Some(Err(error)) => Some(Err(error.kind().into())),
                None => None,
            };
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        })
    }
}

/// A link to `cloud.test`, and the TLS of the cloud.
struct Rig {
    _cloud: Cloud,
    authority: Authority,
    names: Names,
    link: CloudSocket,
}

impl Rig {
    async fn new(port: u16, names: Names) -> Self {
        let mut cloud = Cloud::start().await;
        cloud.config = cloud_config(&cloud.api.url, &format!("wss://cloud.test:{port}/connector"));
        let authority = Authority::new();
        soon(cloud.authenticator.token()).await;
        let authenticator = cloud.authenticator.clone();
        let mut link = CloudSocket::new(cloud.settings(), names.dialer(&authority), authenticator, 1);
        link.set_busy(true);
        Self { _cloud: cloud, authority, names, link }
    }

    /// Waits until the link is up, while this time passes.
    async fn up(&mut self, listener: &TcpListener, passing: Duration) -> Far<TlsStream<TcpStream>> {
        let tls = self.authority.acceptor.clone();
        let accept = async { accept(tls.accept(listener.accept().await.unwrap().0).await.unwrap()).await.0 };
        // boxed, because the states of two TLS handshakes are too large for the stack of a test
        let both = Box::pin(async { tokio::join!(self.link.next_event(false), accept) });
        let (event, far) = within(passing, both).await;
        assert!(matches!(event, SocketEvent::Up), "{event:?}");
        far
    }

    /// Drops a link that has lasted long enough to be made again without a wait.
    async fn drop_link<T>(&mut self, far: T) {
        pass(Duration::from_secs(6)).await;
        drop(far);
        assert!(matches!(soon(self.link.next_event(false)).await, SocketEvent::Down(_)));
    }
}

/// The result of the future, if it is there after this time of the runtime's clock and any real time. The clock
/// passes this time and then stands still; after 20 s of real time without a result, the test fails.
async fn within<T>(time: Duration, future: impl Future<Output = T>) -> T {
    tokio::time::pause();
    // a blocking task keeps the paused clock from advancing by itself
    let (result, wait) = mpsc::channel::<()>();
    let blocked = tokio::task::spawn_blocking(move || wait.recv_timeout(Duration::from_secs(20)));
    let clock = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(time).await;
        std::future::pending().await
    };
    let found = soon(async {
        tokio::select! {
            biased;
            found = future => found,
            () = clock => unreachable!(),
        }
    });
    let found = found.await;
    drop(result);
    let _ended = blocked.await;
    tokio::time::resume();
    found
}

async fn listen(address: IpAddr, port: u16) -> TcpListener {
    TcpListener::bind((address, port)).await.unwrap()
}

#[tokio::test]
async fn a_broken_address_costs_at_most_300_ms_of_a_connect() {
    let blackhole = Blackhole::new(IPV4, 0).fill();
    let mut cloud = Cloud::start().await;
    cloud.listener = listen(IPV6, blackhole.port()).await;
    let url = format!("ws://localhost:{}/connector", blackhole.port());
    cloud.config = cloud_config(&cloud.api.url, &url);
    soon(cloud.authenticator.token()).await;
    let mut link = cloud.link();
    let accept = async { accept(cloud.listener.accept().await.unwrap().0).await };
    let (event, _) = within(LIMIT, async { tokio::join!(link.next_event(false), accept) }).await;
    assert!(matches!(event, SocketEvent::Up), "{event:?}");
}

#[tokio::test]
async fn an_ipv6_that_breaks_costs_at_most_300_ms_of_the_reconnect() {
    let ipv6 = Blackhole::new(IPV6, 0);
    let ipv4 = listen(IPV4, ipv6.port()).await;
    let mut rig = Rig::new(ipv6.port(), Names::new(&[IPV6, IPV4])).await;
    let tls = rig.authority.acceptor.clone();
    let accept = async { accept(tls.accept(ipv6.accept().await).await.unwrap()).await.0 };
    let (event, far) = soon(async { tokio::join!(rig.link.next_event(false), accept) }).await;
    assert!(matches!(event, SocketEvent::Up), "{event:?}");
    let _broken = ipv6.fill();
    rig.drop_link(far).await;
    let far = rig.up(&ipv4, LIMIT).await;
    rig.drop_link(far).await;
    // the address that was good last comes first
    let _far = rig.up(&ipv4, Duration::ZERO).await;
}

#[tokio::test]
async fn an_ipv6_whose_tls_stalls_costs_at_most_300_ms_of_a_connect() {
    // the kernel accepts the connections, and no process answers them
    let ipv6 = listen(IPV6, 0).await;
    let port = ipv6.local_addr().unwrap().port();
    let ipv4 = listen(IPV4, port).await;
    let mut rig = Rig::new(port, Names::new(&[IPV6, IPV4])).await;
    let far = rig.up(&ipv4, LIMIT).await;
    rig.drop_link(far).await;
    // the address that was good last comes first
    let _far = rig.up(&ipv4, Duration::ZERO).await;
}

#[tokio::test]
async fn an_ipv6_whose_tls_begins_to_stall_costs_at_most_300_ms_of_the_reconnect() {
    let ipv6 = listen(IPV6, 0).await;
    let port = ipv6.local_addr().unwrap().port();
    let ipv4 = listen(IPV4, port).await;
    let mut rig = Rig::new(port, Names::new(&[IPV6, IPV4])).await;
    let far = rig.up(&ipv6, Duration::ZERO).await;
    rig.drop_link(far).await;
    let far = rig.up(&ipv4, LIMIT).await;
    rig.drop_link(far).await;
    let _far = rig.up(&ipv4, Duration::ZERO).await;
}

#[tokio::test]
async fn an_address_with_an_untrusted_certificate_is_passed_over() {
    let ipv6 = listen(IPV6, 0).await;
    let port = ipv6.local_addr().unwrap().port();
    let ipv4 = listen(IPV4, port).await;
    let stranger = Authority::new().acceptor;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = ipv6.accept().await {
            stranger.accept(tcp).await.ok();
        }
    });
    let mut rig = Rig::new(port, Names::new(&[IPV6, IPV4])).await;
    let _far = rig.up(&ipv4, Duration::ZERO).await;
}

#[tokio::test]
async fn a_reconnect_does_not_wait_for_a_resolver_that_hangs() {
    let listener = listen(IPV4, 0).await;
    let mut rig = Rig::new(listener.local_addr().unwrap().port(), Names::new(&[IPV4])).await;
    let mut far = rig.up(&listener, Duration::ZERO).await;
    rig.names.set(None);
    for _ in 0..3 {
        rig.drop_link(far).await;
        far = rig.up(&listener, Duration::ZERO).await;
    }
}

#[tokio::test]
async fn the_resolvers_last_answer_is_used_when_it_fails() {
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let listener = listen(IPV4, 0).await;
    let port = listener.local_addr().unwrap().port();
    let mut rig = Rig::new(port, Names::new(&[IPV4, other])).await;
    let far = rig.up(&listener, Duration::ZERO).await;
    rig.names.set(Some(Err(io::ErrorKind::NotFound.into())));
    drop(listener);
    let listener = listen(other, port).await;
    rig.drop_link(far).await;
    let _far = rig.up(&listener, Duration::ZERO).await;
}

#[tokio::test]
async fn a_broken_ipv6_costs_at_most_300_ms_of_a_rest_request() {
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.acceptor.clone()), |_, _| Reply::tokens(1)).await;
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let _broken = Blackhole::new(IPV6, port).fill();
    let names = Names::new(&[IPV6, IPV4]);
    let config = cloud_config(&format!("https://cloud.test:{port}"), "ws://127.0.0.1:1");
    let rest = Rest::new(&config, uuid(), names.dialer(&authority)).unwrap();
    within(LIMIT, rest.log_in(&Pincode::new(PINCODE).unwrap())).await.unwrap();
}
