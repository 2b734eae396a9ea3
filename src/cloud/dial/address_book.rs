//! What is known about the addresses of the cloud's hosts, in memory only.

use std::net::IpAddr;

use super::happy_eyeballs::{KnownAddresses, MAX_ADDRESSES};

/// The most hosts known: API and websocket, resources with separate URLs, and a proxy are fewer.
const MAX_HOSTS: usize = 8;

/// The known addresses by host, the host changed last at the front. A ninth host takes the place of the last one.
#[derive(Debug, Default)]
pub(super) struct AddressBook(Vec<(String, KnownAddresses)>);

impl AddressBook {
    /// What is known about this host.
    pub(super) fn known(&self, host: &str) -> KnownAddresses {
        self.0.iter().find(|(name, _)| name == host).map(|(_, known)| known.clone()).unwrap_or_default()
    }

    /// The resolver has answered. If the answer lacks the last good address, the host has moved, and the old
    /// address is no longer tried first.
    pub(super) fn handle_answer(&mut self, host: &str, addresses: &[IpAddr]) {
        self.change(host, |known| {
            known.answer = addresses.iter().take(MAX_ADDRESSES).copied().collect();
            known.good.take_if(|good| !addresses.contains(good));
        });
    }

    /// A connection to the address works, TLS included.
    pub(super) fn handle_success(&mut self, host: &str, address: IpAddr) {
        self.change(host, |known| known.good = Some(address));
    }

    fn change(&mut self, host: &str, change: impl FnOnce(&mut KnownAddresses)) {
        let position = self.0.iter().position(|(name, _)| name == host);
        let mut entry = match position {
            Some(position) => self.0.remove(position),
            None => (host.to_owned(), KnownAddresses::default()),
        };
        change(&mut entry.1);
        self.0.insert(0, entry);
        self.0.truncate(MAX_HOSTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn a_good_address_that_the_resolver_no_longer_names_is_forgotten() {
        let mut book = AddressBook::default();
        book.handle_success("a", address(1));
        book.handle_answer("a", &[address(2), address(1)]);
        assert_eq!(book.known("a").good, Some(address(1)));
        book.handle_answer("a", &[address(2)]);
        assert_eq!(book.known("a").good, None);
    }

    #[test]
    fn only_the_eight_hosts_changed_last_are_known() {
        let mut book = AddressBook::default();
        for number in 0..20 {
            book.handle_success(&number.to_string(), address(number));
            book.handle_answer("always", &[address(99)]);
        }
        assert_eq!(book.0.len(), MAX_HOSTS);
        assert_eq!(book.known("12").good, None);
        assert_eq!(book.known("13").good, Some(address(13)));
        assert_eq!(book.known("always").answer, [address(99)]);
    }
}
