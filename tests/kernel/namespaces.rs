//! Two network namespaces with a pair of veth interfaces between them, and helpers of tests in them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use connector_agent::config::doip::{DoipConfig, NetworkConfig};
use connector_agent::config::doip_device::{DoipDevice, socket_address};
use connector_agent::vehicle::doip_network::linux::{LinuxNetworks, Purpose};
use connector_agent::vehicle::doip_network::network::{Network, NetworkError};
use connector_hal::ethernet::{AddressWatch, ArpPacket, ArpSocket, Interface};
use connector_hal::future::BoxFuture;
use connector_operator::doip_entity::ListenConfig;
use connector_sim::vehicle::{DoipConfig as GatewayConfig, DoipGateway};
use connector_test_support::HANG;
use connector_test_support::data::golf;
use connector_test_support::skip::environment;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

/// The agent's end of the cable.
pub(crate) const AGENT: &str = "conn0";
pub(crate) const AGENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0C, 0x01];
/// The vehicle's end.
pub(crate) const VEHICLE: &str = "veh0";
pub(crate) const VEHICLE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0C, 0x02];
type Job = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A thread that runs jobs in its own network namespace. When the handle is dropped, the thread and its
/// namespace end.
pub(crate) struct Site {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Site {
    /// Starts the thread; also returns the thread's number, which names its namespace.
    fn start() -> (Self, libc::pid_t) {
        let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
        let (number_sender, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            number_sender.send(enter_own_namespace()).unwrap();
            runtime().block_on(async move {
                while let Some(job) = queue.recv().await {
                    job().await;
                }
            });
        });
        (Self { jobs }, started.recv().unwrap())
    }

    pub(crate) async fn run<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        job: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        let (sender, result) = oneshot::channel();
        let job = move || -> BoxFuture<'static, ()> {
            Box::pin(async move {
                let _not_received_after_a_timeout = sender.send(job().await);
            })
        };
        self.jobs.send(Box::new(job)).expect("the thread runs");
        tokio::time::timeout(HANG, result).await.expect("the job ends").expect("the job does not panic")
    }

    pub(crate) async fn ip(&self, arguments: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.run(move || async move { ip(&arguments) }).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Moves this thread, and the threads that it starts, to a new and empty network namespace.
#[allow(unsafe_code, reason = "std has no function for namespaces")]
fn enter_own_namespace() -> libc::pid_t {
    // SAFETY: `unshare` and `gettid` take numbers only.
    let (left, thread) = unsafe { (libc::unshare(libc::CLONE_NEWNET), libc::gettid()) };
    let error = std::io::Error::last_os_error();
    assert_eq!(
        left, 0,
        "this machine allows no network namespaces: {error}; needs root, and a kernel that has them"
    );
    ip(&["link", "set", "lo", "up"]);
    thread
}

fn ip<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(arguments: &[S]) {
    let output =
        std::process::Command::new("ip").args(arguments).output().expect("ip of iproute2 is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error}");
}

/// What `ip` prints.
fn printed(arguments: &[&str]) -> String {
    let output = std::process::Command::new("ip").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn text([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Runs a test on the agent's side of a cable, unless it is to be skipped.
pub(crate) fn in_namespaces(test: impl AsyncFnOnce(Rig) + Send + 'static) {
    if environment("CONNECTOR_TEST_NETNS").is_none() {
        return;
    }
    // a separate thread, because the test runner may run other tests on this one afterwards
    let thread = std::thread::spawn(move || {
        let (vehicle, thread) = Site::start();
        enter_own_namespace();
        let (agent_mac, vehicle_mac) = (text(AGENT_MAC), text(VEHICLE_MAC));
        let pair = ["link", "add", AGENT, "address", &agent_mac, "type", "veth", "peer", "name", VEHICLE];
        ip(&[&pair[..], &["address", &vehicle_mac]].concat());
        ip(&["link", "set", VEHICLE, "netns", &thread.to_string()]);
        runtime().block_on(async move {
            vehicle.ip(&["link", "set", VEHICLE, "up"]).await;
            let directory = tempfile::tempdir().unwrap();
            test(Rig { vehicle, directory }).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The agent's side of the cable, and access to the vehicle's side.
pub(crate) struct Rig {
    pub vehicle: Site,
    directory: TempDir,
}

/// ARP on the vehicle's end of the cable.
pub(crate) struct Arp {
    pub packets: mpsc::UnboundedReceiver<ArpPacket>,
    to_send: mpsc::UnboundedSender<ArpPacket>,
}

impl Arp {
    pub(crate) fn send(&self, packet: ArpPacket) {
        self.to_send.send(packet).unwrap();
    }

    pub(crate) async fn wait_for(&mut self, is_meant: impl Fn(&ArpPacket) -> bool) -> ArpPacket {
        let heard = async {
            loop {
                let packet = self.packets.recv().await.unwrap();
                if is_meant(&packet) {
                    return packet;
                }
            }
        };
        tokio::time::timeout(HANG, heard).await.expect("the packet arrives")
    }
}

impl Rig {
    pub(crate) async fn ip(&self, arguments: &[&str]) {
        ip(arguments);
    }

    /// Adds a second interface with this address, which leads away from the vehicle. Returns its name.
    pub(crate) async fn uplink(&self, address: &str) -> &'static str {
        ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]);
        for end in ["up0", "up1"] {
            ip(&["link", "set", end, "up"]);
        }
        ip(&["addr", "add", address, "dev", "up0"]);
        "up0"
    }

    /// Adds a default route by the uplink to this router.
    pub(crate) fn default_route(&self, router: &str) {
        ip(&["route", "add", "default", "via", router, "dev", "up0"]);
    }

    /// The routes that all packets of the agent's side use, as text.
    pub(crate) fn routes(&self) -> String {
        printed(&["route", "show", "table", "main"])
    }

    /// The rules that lead to routing tables, as text.
    pub(crate) fn rules(&self) -> String {
        printed(&["rule", "show"])
    }

    /// A gateway in the vehicle.
    pub(crate) async fn gateway(&self, listen: &str, change: impl FnOnce(&mut GatewayConfig)) -> DoipGateway {
        let vehicle = golf();
        let listen = listen.to_owned();
        // the number of an interface is valid only in its namespace
        let listen = self.vehicle.run(move || async move { socket_address(&listen).unwrap() }).await;
        let mut config = GatewayConfig::new(&vehicle, ListenConfig::new(listen));
        change(&mut config);
        self.vehicle.run(move || async move { DoipGateway::start(&vehicle, config).await.unwrap() }).await
    }

    /// Receives ARP packets, and can send them.
    pub(crate) async fn arp(&self) -> Arp {
        let (heard, packets) = mpsc::unbounded_channel();
        let (to_send, mut sending) = mpsc::unbounded_channel();
        self.vehicle
            .run(move || async move {
                let socket = ArpSocket::open(&Interface::find(VEHICLE).unwrap()).unwrap();
                tokio::spawn(async move {
                    loop {
                        tokio::select! {
                            packet = socket.receive() => match packet {
                                Ok(packet) => drop(heard.send(packet)),
                                // the interface went down
                                Err(_) => tokio::task::yield_now().await,
                            },
                            Some(packet) = sending.recv() => socket.send(&packet).unwrap(),
                        }
                    }
                });
            })
            .await;
        Arp { packets, to_send }
    }

    /// Waits until the vehicle's IPv6 link-local address can be used, and returns it.
    pub(crate) async fn vehicle_link_local(&self) -> IpAddr {
        self.ip(&["link", "set", AGENT, "up"]).await;
        self.vehicle
            .run(|| async { until(VEHICLE, |addresses| addresses.iter().copied().find(is_link_local)).await })
            .await
    }

    /// The usable addresses of the agent's end.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        addresses(AGENT)
    }

    /// Waits until `is_so` accepts the addresses of the agent's end.
    pub(crate) async fn until(&self, is_so: impl Fn(&[IpAddr]) -> bool) {
        until(AGENT, |addresses| is_so(addresses).then_some(())).await;
    }

    /// The network behind a device.
    pub(crate) async fn open(
        &self,
        device: &str,
        network: &NetworkConfig,
        purpose: Purpose,
    ) -> Result<Box<dyn Network>, NetworkError> {
        let config = DoipConfig { address_wait: HANG, ..DoipConfig::default() };
        let networks = LinuxNetworks::new(Arc::new(config), None);
        let device: DoipDevice = device.parse().unwrap();
        let opened = networks.open(&device, network, purpose).await?;
        // address claims end when `networks` is dropped
        Ok(Box::new(Kept { network: Box::new(opened), _networks: networks }))
    }

    /// Runs `connector-agent vin` with this network configuration on a configured bus. Returns status and
    /// output.
    pub(crate) async fn vin(&self, device: &str, configuration: u8, more: &str) -> (Option<i32>, String) {
        let file = self.directory.path().join("agent.toml");
        let config = format!(
            "[connector]\nuuid = \"5f3d760d-ade2-4a19-aea4-36e097678ae3\"\npincode = \"1234\"\n\
             [cloud]\napi_url = \"https://api.example.com\"\nwebsocket_url = \"wss://ws.example.com/\"\n\
             [[bus]]\nkind = \"doip\"\npins = [3, 11]\ndevice = \"{device}\"\n\
             [doip]\nnetwork_configuration = {configuration}\naddress_wait_ms = 60000\n{more}"
        );
        std::fs::write(&file, config).unwrap();
        self.run_vin(&["--config", file.to_str().unwrap()]).await
    }

    /// Runs `connector-agent vin` with these arguments. Returns status and output. Without a VIN, the command
    /// takes 20 s.
    pub(crate) async fn run_vin(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connector-agent"));
        command.args(["vin", "--budget-ms", "20000"]).args(arguments).kill_on_drop(true);
        let output = tokio::time::timeout(HANG, command.output()).await.expect("vin hangs").unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&printed).into_owned())
    }

    /// Starts a DHCP server in the vehicle. It ends with the rig.
    pub(crate) async fn start_dhcp_server(&self, first: &str, last: &str) {
        let directory = self.directory.path().to_owned();
        let file = directory.join("udhcpd.conf");
        let config = format!(
            "start {first}\nend {last}\ninterface {VEHICLE}\nlease_file {leases}\npidfile {pid}\nauto_time 0\n\
             option subnet 255.255.255.0\noption lease 600\n",
            leases = directory.join("leases").display(),
            pid = directory.join("udhcpd.pid").display(),
        );
        std::fs::write(&file, config).unwrap();
        std::fs::write(directory.join("leases"), "").unwrap();
        self.vehicle
            .run(move || async move {
                let mut server = Command::new("udhcpd");
                server.arg("-f").arg(&file).kill_on_drop(true).stdout(std::process::Stdio::null());
                let server = server.stderr(std::process::Stdio::null()).spawn().expect("udhcpd is installed");
                // the server ends with the thread's runtime
                tokio::spawn(wait(server));
            })
            .await;
    }

    /// The command of a DHCP client that leaves the machine's resolver alone, as an array of TOML. Its script also
    /// runs `more` when there is an address.
    pub(crate) fn dhcp_client(&self, more: &str) -> String {
        let script = self.directory.path().join("bound");
        let text = format!(
            "#!/bin/sh\ncase $1 in bound|renew) ip addr replace \"$ip/$mask\" dev \"$interface\"\n{more}\n;; esac\n"
        );
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let pid = self.directory.path().join("client.pid");
        let (script, pid) = (script.display(), pid.display());
        format!("[\"udhcpc\", \"-f\", \"-i\", \"{{interface}}\", \"-s\", \"{script}\", \"-p\", \"{pid}\"]")
    }

    /// Waits until the DHCP client has ended. A client that ends on request removes the file with its process
    /// number.
    pub(crate) async fn dhcp_client_ends(&self) {
        let pid = self.directory.path().join("client.pid");
        let gone = async {
            while pid.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(HANG, gone).await.expect("the DHCP client ends with the agent");
    }
}

async fn wait(mut child: Child) {
    let _status = child.wait().await;
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn addresses(interface: &str) -> Vec<IpAddr> {
    let addresses = Interface::find(interface).unwrap().addresses().unwrap();
    addresses.into_iter().filter(|address| !address.is_tentative).map(|address| address.ip).collect()
}

async fn until<T>(interface: &str, found: impl Fn(&[IpAddr]) -> Option<T>) -> T {
    let watch = AddressWatch::new().unwrap();
    let waiting = async {
        loop {
            if let Some(found) = found(&addresses(interface)) {
                return found;
            }
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(HANG, waiting).await.expect("the addresses arrive")
}

/// A network, and the owner of its address claims.
struct Kept {
    network: Box<dyn Network>,
    _networks: LinuxNetworks,
}

impl Network for Kept {
    fn destinations(&self) -> Vec<connector_agent::protocol::doip::discovery::Destination> {
        self.network.destinations()
    }

    fn poll_receive(
        &mut self,
        cx: &mut std::task::Context<'_>,
        buffer: &mut [u8],
    ) -> std::task::Poll<std::io::Result<(usize, std::net::SocketAddr)>> {
        self.network.poll_receive(cx, buffer)
    }

    fn take_foreign(&mut self) -> Option<std::net::SocketAddr> {
        self.network.take_foreign()
    }

    fn send(
        &mut self,
        destination: connector_agent::protocol::doip::discovery::Destination,
        datagram: &[u8],
    ) -> std::io::Result<()> {
        self.network.send(destination, datagram)
    }

    fn connect(
        &self,
        gateway: std::net::SocketAddr,
        tls: bool,
    ) -> BoxFuture<
        'static,
        Result<
            Box<dyn connector_agent::vehicle::doip_network::network::Stream>,
            connector_agent::vehicle::doip_network::network::GatewayConnectError,
        >,
    > {
        self.network.connect(gateway, tls)
    }
}
