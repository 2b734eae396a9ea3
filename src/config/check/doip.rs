//! The contradictions in the `[doip]` table.

use crate::config::doip::{DoipConfig, InterfaceAddressing, NETWORK_CONFIGURATIONS, NetworkConfig};
use crate::config::problem::ConfigProblem;
use crate::tls::gateway::DoipTlsConfig;

/// Everything that is wrong with the table.
pub(super) fn check(config: &DoipConfig) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    let number = config.network_configuration;
    if !NETWORK_CONFIGURATIONS.contains(&number) {
        let what = format!("{number} is out of range");
        problems.push(ConfigProblem::error(what, "set 1 to 9").at_key("doip.network_configuration"));
    }
    for (name, network) in &config.network {
        check_network(name, network, &mut problems);
    }
    check_tls(&config.tls, &mut problems);
    problems
}

fn check_network(name: &str, network: &NetworkConfig, problems: &mut Vec<ConfigProblem>) {
    let table = format!("doip.network.{name}");
    let is_known = name.parse().is_ok_and(|number: u8| NETWORK_CONFIGURATIONS.contains(&number));
    if !is_known {
        problems.push(ConfigProblem::error("no such network configuration", "name it 1 to 9").at_key(&table));
    }
    let mut add = |key: &str, what: &str, fix: &str| {
        problems.push(ConfigProblem::error(what, fix).at_key(format!("{table}.{key}")));
    };
    if network.addressing == InterfaceAddressing::Fixed && network.address.is_none() {
        add("addressing", "the address is missing", "set address, like \"192.168.7.1/24\"");
    }
    let [first, last] = network.tester_addresses;
    if first > last {
        add("tester_addresses", "the first is greater than the last", "set the first and the last");
    }
    if !matches!(network.protocol_version, 2..=4) {
        let what = format!("version {} is not supported", network.protocol_version);
        add("protocol_version", &what, "set 2 (2012), 3 (2019) or 4 (2019/Amd 1, 2025)");
    }
}

fn check_tls(tls: &DoipTlsConfig, problems: &mut Vec<ConfigProblem>) {
    if tls.certificate_file.is_some() != tls.key_file.is_some() {
        let fix = "set both certificate_file and key_file, or neither";
        problems.push(ConfigProblem::error("a certificate needs its key", fix).at_key("doip.tls"));
    }
    if tls.trust_any {
        let what = "the agent trusts any gateway's certificate";
        let fix = "set doip.tls.ca_file to the CA of the vehicle's certificate";
        problems.push(ConfigProblem::warning(what, fix).at_key("doip.tls.trust_any"));
    }
}
