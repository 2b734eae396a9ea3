//! DoIP on an Ethernet link: two network namespaces with a pair of veth interfaces between them. The agent is
//! in one, the simulated gateway in the other.
//!
//! The tests need root, iproute2 (`ip`), udhcpc and udhcpd, and a kernel with namespaces and veth. They run
//! if `CONNECTOR_TEST_NETNS=1` is set, as `cross/doip-link` does. Otherwise they print one line `SKIPPED: …`
//! and pass.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use crate::namespaces::{AGENT, AGENT_MAC, Rig, VEHICLE, VEHICLE_MAC, in_namespaces};
use connector_agent::config::doip::{DiscoveryMethod, DoipConfig, InterfaceAddressing, NetworkConfig};
use connector_agent::protocol::doip::ActivationType;
use connector_agent::protocol::doip::discovery::DiscoveryEvent;
use connector_agent::protocol::doip::link_local::LinkLocal;
use connector_agent::relay::wire::request::BusConfig;
use connector_agent::vehicle::doip_network::explorer::Explorer;
use connector_agent::vehicle::doip_network::linux::{LinuxNetworks, Purpose};
use connector_hal::ethernet::{ArpPacket, Interface};
use connector_operator::client::Timing;
use connector_operator::doip_entity::tls::EntityTls;
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_test_support::agent::{AgentSettings, Sandbox, TestAgent, bus};
use connector_test_support::config::doip_bus;
use connector_test_support::data::golf;
use connector_test_support::soon;
use serde_json::json;

/// The vehicle's address in tests with link-local addresses.
const LINK_LOCAL: &str = "169.254.7.1/16";

/// The first address that the agent claims.
fn first_candidate() -> Ipv4Addr {
    LinkLocal::new(AGENT_MAC, std::time::Instant::now()).address()
}

fn vin() -> String {
    golf().record.vin.unwrap().as_str().to_owned()
}

/// Checks that `vin` with this network configuration prints the vehicle's VIN.
async fn reads_vin(rig: &Rig, configuration: u8, more: &str) {
    let (status, output) = rig.vin(AGENT, configuration, more).await;
    assert!(
        status == Some(0) && output.contains(&vin()) && output.contains("0x4010"),
        "{status:?}: {output}"
    );
}

fn is_probe(packet: &ArpPacket, of: Ipv4Addr) -> bool {
    packet.sender_mac == AGENT_MAC && packet.sender_ip.is_unspecified() && packet.target_ip == of
}

fn is_announcement(packet: &ArpPacket, of: Ipv4Addr) -> bool {
    packet.sender_mac == AGENT_MAC && packet.sender_ip == of && packet.target_ip == of
}

#[test]
fn a_link_local_address_is_probed_announced_used_and_removed() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", LINK_LOCAL, "dev", VEHICLE]).await;
        let _gateway = rig.gateway("0.0.0.0:13400", |_| {}).await;
        let mut arp = rig.arp().await;
        reads_vin(&rig, 2, "").await;
        let own = first_candidate();
        let mut packets = Vec::new();
        while let Ok(packet) = arp.packets.try_recv() {
            packets.push(packet);
        }
        let announced = packets.iter().position(|packet| is_announcement(packet, own)).expect("announced");
        assert_eq!(packets[..announced].iter().filter(|packet| is_probe(packet, own)).count(), 3);
        assert!(!rig.addresses().contains(&IpAddr::V4(own)), "the address is removed at the end");
    });
}

#[test]
fn an_address_of_another_host_is_not_claimed() {
    in_namespaces(async |rig| {
        let first = first_candidate();
        rig.vehicle.ip(&["addr", "add", &format!("{first}/16"), "dev", VEHICLE]).await;
        let _gateway = rig.gateway("0.0.0.0:13400", |_| {}).await;
        let mut arp = rig.arp().await;
        reads_vin(&rig, 2, "").await;
        let mut announced = BTreeSet::new();
        while let Ok(packet) = arp.packets.try_recv() {
            if packet.sender_mac == AGENT_MAC && !packet.sender_ip.is_unspecified() {
                announced.insert(packet.sender_ip);
            }
        }
        assert!(!announced.is_empty() && !announced.contains(&first), "{announced:?}");
    });
}

#[test]
fn a_claimed_address_is_defended_once_then_given_up_for_another() {
    in_namespaces(async |rig| {
        let mut arp = rig.arp().await;
        let network = rig.open(AGENT, &NetworkConfig::known(2), Purpose::Talk).await.unwrap();
        let own = first_candidate();
        assert!(rig.addresses().contains(&IpAddr::V4(own)));
        // waits for both announcements
        for _ in 0..2 {
            arp.wait_for(|packet| is_announcement(packet, own)).await;
        }
        let conflict = ArpPacket {
            is_reply: false,
            sender_mac: VEHICLE_MAC,
            sender_ip: own,
            target_mac: [0; 6],
            target_ip: own,
        };
        arp.send(conflict);
        arp.wait_for(|packet| is_announcement(packet, own)).await;
        arp.send(conflict);
        rig.until(|addresses| !addresses.contains(&IpAddr::V4(own))).await;
        let other =
            arp.wait_for(|packet| packet.sender_mac == AGENT_MAC && !packet.sender_ip.is_unspecified());
        let other = other.await.sender_ip;
        assert_ne!(other, own);
        rig.until(|addresses| addresses.contains(&IpAddr::V4(other))).await;
        drop(network);
    });
}

#[test]
fn an_address_is_claimed_each_time_the_cable_is_connected() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["link", "set", VEHICLE, "down"]).await;
        let mut arp = None;
        let network = {
            let configuration = NetworkConfig::known(2);
            let opening = rig.open(AGENT, &configuration, Purpose::Talk);
            tokio::pin!(opening);
            // the other end is not connected yet
            let early = tokio::time::timeout(Duration::from_secs(8), &mut opening).await;
            assert!(early.is_err(), "an address was claimed although no host could object");
            assert_eq!(rig.addresses().into_iter().find(IpAddr::is_ipv4), None);
            rig.vehicle.ip(&["link", "set", VEHICLE, "up"]).await;
            arp.replace(rig.arp().await);
            opening.await.unwrap()
        };
        let own = IpAddr::V4(first_candidate());
        assert!(rig.addresses().contains(&own));
        rig.vehicle.ip(&["link", "set", VEHICLE, "down"]).await;
        rig.until(|addresses| !addresses.contains(&own)).await;
        rig.vehicle.ip(&["link", "set", VEHICLE, "up"]).await;
        rig.until(|addresses| addresses.contains(&own)).await;
        drop(network);
    });
}

#[test]
fn a_fixed_address_is_set_unless_the_system_has_set_one() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", "192.168.0.1/24", "dev", VEHICLE]).await;
        let _gateway = rig.gateway("0.0.0.0:13400", |_| {}).await;
        let own = IpAddr::from([192, 168, 0, 2]);
        reads_vin(&rig, 4, "").await;
        assert!(!rig.addresses().contains(&own), "the address is taken back at the end");
        rig.ip(&["addr", "add", "192.168.0.2/24", "dev", AGENT]).await;
        for configuration in [4, 1, 5] {
            reads_vin(&rig, configuration, "").await;
        }
        assert!(rig.addresses().contains(&own), "the system's address stays");
    });
}

#[test]
fn a_fixed_address_is_shared_without_a_route_and_taken_back_with_the_last_use() {
    in_namespaces(async |rig| {
        rig.uplink("10.9.0.2/24").await;
        let before = rig.routes();
        let networks = LinuxNetworks::new(Default::default(), None);
        let device = AGENT.parse().unwrap();
        let own = IpAddr::from([192, 168, 0, 2]);
        let fixed = NetworkConfig::known(4);
        let first = networks.open(&device, &fixed, Purpose::Talk).await.unwrap();
        let second = networks.open(&device, &fixed, Purpose::Talk).await.unwrap();
        let of_ipv4 = |routes: String| routes.lines().filter(|route| !route.contains(':')).count();
        assert_eq!(of_ipv4(rig.routes()), of_ipv4(before), "{}", rig.routes());
        drop(first);
        assert!(rig.addresses().contains(&own));
        drop(second);
        rig.until(|addresses| !addresses.contains(&own)).await;
    });
}

#[test]
fn answers_pass_a_strict_reverse_path_filter_although_there_is_no_route() {
    in_namespaces(async |rig| {
        let fixed = "192.168.0.1/24";
        for address in [fixed, LINK_LOCAL] {
            rig.vehicle.ip(&["addr", "add", address, "dev", VEHICLE]).await;
        }
        let _gateway = rig.gateway("0.0.0.0:13400", |config| config.forget_vin()).await;
        for filter in ["1", "2"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{AGENT}/rp_filter"), filter).unwrap();
            for configuration in [4, 2] {
                reads_vin(&rig, configuration, "").await;
                rig.until(|addresses| !addresses.iter().any(IpAddr::is_ipv4)).await;
                assert!(!rig.rules().contains("1340"), "{}", rig.rules());
            }
        }
    });
}

#[test]
fn a_fixed_address_in_the_network_of_another_interface_is_refused() {
    in_namespaces(async |rig| {
        let uplink = rig.uplink("192.168.0.77/24").await;
        let before = rig.routes();
        let refused = async |address: &str| {
            let address = Some(address.parse().unwrap());
            let fixed = NetworkConfig { address, ..NetworkConfig::known(4) };
            match rig.open(AGENT, &fixed, Purpose::Talk).await {
                Err(error) => error.to_string(),
                Ok(_) => panic!("{address:?} is accepted"),
            }
        };
        for address in ["192.168.0.2/24", "192.168.0.2/32", "192.168.1.2/16"] {
            let error = refused(address).await;
            assert!(error.contains(AGENT) && error.contains("192.168.0.0/24 of up0"), "{error}");
        }
        // a network that a route of the other interface leads to
        rig.ip(&["route", "add", "10.0.0.0/8", "via", "192.168.0.1", "dev", uplink]).await;
        let error = refused("10.1.2.3/24").await;
        assert!(error.contains("10.0.0.0/8 of up0"), "{error}");
        rig.ip(&["route", "del", "10.0.0.0/8"]).await;
        assert_eq!(rig.addresses().into_iter().find(IpAddr::is_ipv4), None);
        assert!(before.lines().all(|route| rig.routes().contains(route)), "{}", rig.routes());
    });
}

#[test]
fn an_address_claimed_for_an_operator_is_taken_back_when_the_network_is_left() {
    in_namespaces(async |rig| {
        let networks = LinuxNetworks::new(Default::default(), None);
        let device = AGENT.parse().unwrap();
        let network = networks.open(&device, &NetworkConfig::known(2), Purpose::Talk).await.unwrap();
        let own = IpAddr::V4(first_candidate());
        assert!(
            rig.addresses().contains(&own) && !rig.routes().contains("169.254.0.0/16"),
            "{}",
            rig.routes()
        );
        drop(network);
        rig.until(|addresses| !addresses.contains(&own)).await;
        // in the connector's own network configuration, the address is kept for the next reading
        let config = DoipConfig { network_configuration: 2, ..DoipConfig::default() };
        let networks = LinuxNetworks::new(Arc::new(config), None);
        drop(networks.open(&device, &NetworkConfig::known(2), Purpose::Talk).await.unwrap());
        assert!(rig.addresses().contains(&own));
        drop(networks);
        rig.until(|addresses| !addresses.contains(&own)).await;
    });
}

#[test]
fn datagrams_of_hosts_outside_the_interfaces_network_are_dropped() {
    in_namespaces(async |rig| {
        rig.ip(&["link", "set", AGENT, "up"]).await;
        rig.ip(&["addr", "add", "10.5.0.9/24", "dev", AGENT]).await;
        rig.vehicle.ip(&["addr", "add", "192.168.0.1/24", "dev", VEHICLE]).await;
        let network = rig.open(AGENT, &NetworkConfig::known(1), Purpose::Talk).await.unwrap();
        let mut explorer = Explorer::new(network);
        let foreign = rig.gateway("192.168.0.1:13400", |_| {}).await;
        let first =
            soon("the foreign announcement", std::future::poll_fn(|cx| explorer.poll(cx))).await.unwrap();
        let DiscoveryEvent::Foreign { from } = first else { panic!("{first:?}") };
        assert_eq!(from.ip(), IpAddr::from([192, 168, 0, 1]));
        foreign.stop().await;
        rig.vehicle.ip(&["addr", "add", "10.5.0.1/24", "dev", VEHICLE]).await;
        let _gateway = rig.gateway("10.5.0.1:13400", |_| {}).await;
        let found = soon("the announcement", async {
            loop {
                let event = std::future::poll_fn(|cx| explorer.poll(cx)).await.unwrap();
                if let DiscoveryEvent::Found(found) = event {
                    return found;
                }
            }
        });
        assert_eq!(found.await.address.ip(), IpAddr::from([10, 5, 0, 1]));
    });
}

#[test]
fn an_address_that_arrives_late_is_used() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", "192.168.0.1/24", "dev", VEHICLE]).await;
        let _gateway = rig.gateway("0.0.0.0:13400", |_| {}).await;
        rig.ip(&["link", "set", AGENT, "up"]).await;
        // configuration 1 finds the IPv6 address, and asks without an answer before the IPv4 address arrives
        let reading = reads_vin(&rig, 1, "");
        let system = async {
            rig.until(|addresses| addresses.iter().any(IpAddr::is_ipv6)).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            rig.ip(&["addr", "add", "192.168.0.9/24", "dev", AGENT]).await;
        };
        tokio::join!(reading, system);
    });
}

#[test]
fn by_ipv6_gateways_are_found_by_multicast_and_named_with_their_interface() {
    in_namespaces(async |rig| {
        let own = rig.vehicle_link_local().await;
        for listen in ["[::]:13400".to_owned(), format!("[{own}%{VEHICLE}]:13400")] {
            let gateway = rig.gateway(&listen, |_| {}).await;
            reads_vin(&rig, 6, "").await;
            let index = Interface::find(AGENT).unwrap().index();
            for host in [format!("doip:{own}%{AGENT}"), format!("doip:[{own}%{index}]:13400")] {
                let (status, output) = rig.run_vin(&["--bus", &host]).await;
                assert!(status == Some(0) && output.contains(&vin()), "{host}: {status:?}: {output}");
            }
            gateway.stop().await;
        }
    });
}

#[test]
fn unsolicited_announcements_are_received_by_broadcast_and_multicast() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", LINK_LOCAL, "dev", VEHICLE]).await;
        rig.ip(&["link", "set", AGENT, "up"]).await;
        let own = rig.vehicle_link_local().await;
        let listening =
            NetworkConfig { discovery: vec![DiscoveryMethod::Announcement], ..NetworkConfig::known(1) };
        // without an IPv4 address of the agent's own, the first announcement is received too
        for listen in ["169.254.7.1:13400".to_owned(), format!("[{own}%{VEHICLE}]:13400")] {
            let network = rig.open(AGENT, &listening, Purpose::Listen).await.unwrap();
            let mut explorer = Explorer::new(network);
            let gateway = rig.gateway(&listen, |_| {}).await;
            let found = soon("an announcement", std::future::poll_fn(|cx| explorer.poll(cx))).await.unwrap();
            let DiscoveryEvent::Found(found) = found else { panic!("{found:?}") };
            assert_eq!((found.announcement.address, found.was_asked), (GATEWAY, false));
            assert_eq!(found.address.is_ipv4(), listen.starts_with('1'));
            gateway.stop().await;
        }
    });
}

#[test]
fn the_systems_dhcp_client_is_started_once_and_ended_with_the_agent() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", "10.77.0.1/24", "dev", VEHICLE]).await;
        let _gateway = rig.gateway("0.0.0.0:13400", |_| {}).await;
        rig.start_dhcp_server("10.77.0.20", "10.77.0.20").await;
        let command = rig.dhcp_client("");
        reads_vin(&rig, 3, &format!("dhcp_command = {command}\n")).await;
        assert!(rig.addresses().contains(&IpAddr::from([10, 77, 0, 20])));
        rig.dhcp_client_ends().await;
    });
}

#[test]
fn a_dhcp_client_that_sets_a_default_route_is_reported() {
    in_namespaces(async |rig| {
        rig.uplink("10.9.0.2/24").await;
        rig.vehicle.ip(&["addr", "add", "10.77.0.1/24", "dev", VEHICLE]).await;
        // the VIN takes long enough for the route to be noticed
        let _gateway = rig.gateway("0.0.0.0:13400", |config| {
            config.forget_vin();
            config.entity.latency = Duration::from_secs(1);
        });
        let _gateway = _gateway.await;
        rig.start_dhcp_server("10.77.0.20", "10.77.0.20").await;
        let command = rig.dhcp_client("ip route add default via 10.77.0.1 dev \"$interface\"");
        let (status, output) = rig.vin(AGENT, 3, &format!("dhcp_command = {command}\n")).await;
        assert_eq!(status, Some(0), "{output}");
        assert!(
            output.contains("a default route leads to the vehicle") && output.contains(AGENT),
            "{output}"
        );
        rig.dhcp_client_ends().await;
    });
}

#[test]
fn a_dhcp_client_that_takes_the_default_route_away_is_reported() {
    in_namespaces(async |rig| {
        rig.uplink("10.9.0.2/24").await;
        rig.default_route("10.9.0.1");
        rig.vehicle.ip(&["addr", "add", "10.77.0.1/24", "dev", VEHICLE]).await;
        let gateway = rig.gateway("0.0.0.0:13400", |config| {
            config.forget_vin();
            config.entity.latency = Duration::from_secs(1);
        });
        let _gateway = gateway.await;
        rig.start_dhcp_server("10.77.0.20", "10.77.0.20").await;
        let command = rig.dhcp_client("ip route del default");
        let (status, output) = rig.vin(AGENT, 3, &format!("dhcp_command = {command}\n")).await;
        assert_eq!(status, Some(0), "{output}");
        assert!(
            output.contains("another interface is gone: 0.0.0.0/0 via 10.9.0.1 dev up0 metric 0"),
            "{output}"
        );
        rig.dhcp_client_ends().await;
    });
}

#[test]
fn an_address_by_dhcp_in_the_network_of_another_interface_is_refused() {
    in_namespaces(async |rig| {
        rig.uplink("10.77.0.200/24").await;
        rig.vehicle.ip(&["addr", "add", "10.77.0.1/24", "dev", VEHICLE]).await;
        rig.start_dhcp_server("10.77.0.20", "10.77.0.20").await;
        let command = rig.dhcp_client("");
        let (status, output) = rig.vin(AGENT, 3, &format!("dhcp_command = {command}\n")).await;
        assert!(
            status == Some(3) && output.contains("belongs to the network 10.77.0.0/24 of up0"),
            "{output}"
        );
        assert!(!rig.addresses().contains(&IpAddr::from([10, 77, 0, 20])));
        rig.dhcp_client_ends().await;
    });
}

#[test]
fn configurations_7_to_9_activate_as_their_numbers_define() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", LINK_LOCAL, "dev", VEHICLE]).await;
        rig.ip(&["addr", "add", "169.254.9.9/16", "dev", AGENT, "scope", "link"]).await;
        for (configuration, only) in [(7, ActivationType::Regulation), (8, ActivationType::CentralSecurity)] {
            let gateway = rig
                .gateway("0.0.0.0:13400", |config| {
                    config.forget_vin();
                    config.entity.activation.types = vec![only];
                })
                .await;
            reads_vin(&rig, configuration, "").await;
            let (status, output) = rig.vin(AGENT, 2, "").await;
            assert!(status == Some(3) && output.contains("(0x06)"), "{status:?}: {output}");
            gateway.stop().await;
        }
        let tls = EntityTls::self_signed(&["gateway.example".to_owned()]).unwrap();
        let _gateway = rig
            .gateway("0.0.0.0:13400", |config| {
                config.forget_vin();
                config.listen.tls = Some((3496, tls.config.clone()));
                config.entity.activation.tls_required = true;
            })
            .await;
        reads_vin(&rig, 9, "[doip.tls]\ntrust_any = true\n").await;
        let (status, output) = rig.vin(AGENT, 9, "").await;
        assert!(status == Some(3) && output.contains("doip.tls.ca_file"), "{status:?}: {output}");
    });
}

/// The whole agent claims an address, then reads the VIN, and opens a channel to an ECU.
#[test]
fn the_agent_reports_the_vin_and_relays_when_its_network_is_ready() {
    in_namespaces(async |rig| {
        rig.vehicle.ip(&["addr", "add", LINK_LOCAL, "dev", VEHICLE]).await;
        // the gateway sends no announcement while the agent is online
        let _gateway = rig.gateway("0.0.0.0:13400", |config| config.entity.announcements = 0).await;
        let sandbox = Sandbox::start(1).await;
        let connector = sandbox.connectors[0].clone();
        let mut portal = sandbox.portal(&connector).await;
        let settings =
            AgentSettings { doip: Some(AGENT.to_owned()), doip_network: Some(2), ..AgentSettings::default() };
        let agent = TestAgent::start(&sandbox, &connector, &bus(), settings);
        portal.sees("the VIN", |status| status["vin_number"] == vin()).await;
        let ticket = sandbox.ticket(&connector, Some(&vin())).await;
        let connecting = sandbox.operator.connect(ticket.connection().unwrap());
        let connection = soon("the connection", connecting).await.unwrap();
        for configuration in [2, 6] {
            let bus: BusConfig = serde_json::from_value(doip_bus(configuration)).unwrap();
            // the first gateway only listens on IPv4
            let gateway = match NetworkConfig::known(configuration).addressing {
                InterfaceAddressing::Ipv6LinkLocal => {
                    let own = rig.vehicle_link_local().await;
                    Some(rig.gateway(&format!("[{own}%{VEHICLE}]:13400"), |_| {}).await)
                }
                _ => None,
            };
            soon("the bus", connection.configure_buses(vec![bus])).await.unwrap();
            let config = json!({"bus_name": "ETH", "gateway_id": GATEWAY.get(), "tester_id": 0x0E80,
                                "ecu_id": FIRST_ECU});
            let config = serde_json::from_value(config).unwrap();
            let opening = connection.open_channel(|open| open.doip_channel = Some(config));
            let channel = soon("the channel", opening).await.unwrap();
            let present =
                soon("the answer", channel.request(&[0x3E, 0x00], &Timing::default())).await.unwrap();
            assert_eq!(present.data, [0x7E, 0x00]);
            drop(gateway);
        }
        soon("the end", connection.close()).await.unwrap();
        agent.shut_down().await;
    });
}
