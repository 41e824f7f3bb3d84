// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host names by which metrics may be requested. A page in somebody's browser may have a name
//! that resolves to an address of this machine (DNS rebinding). `Host` is then the page's name,
//! which is refused.

use std::net::IpAddr;

use ngx_bpf_record::host::host_and_port;
use ngx_bpf_record::host::without_brackets;

/// The names of one listener.
pub struct Hosts {
    /// The address that the listener is bound to.
    bound: IpAddr,
    /// The first part of this machine's name, in lower case.
    machine: String,
}

impl Hosts {
    /// Of what is bound to this address.
    pub fn bound_to(bound: IpAddr) -> Self {
        let uname = rustix::system::uname();
        Self::new(bound, &uname.nodename().to_string_lossy())
    }

    /// Returns the names of a listener on a machine with this name.
    fn new(bound: IpAddr, machine: &str) -> Self {
        let machine = first_part(machine).to_ascii_lowercase();
        Self { bound, machine }
    }

    /// Returns whether a `Host` is one of the names, with any port, since the port may be
    /// forwarded. A listener on loopback has `localhost` and the addresses of loopback. One on
    /// another address has that address, and the name of this machine in any domain. One on all
    /// addresses has any address, `localhost`, and the name of this machine.
    pub fn has(&self, host: &str) -> bool {
        let name = host_and_port(host).0;
        let address = without_brackets(name).trim_end_matches('.');
        let address = address.parse::<IpAddr>().ok();
        let name = name.trim_end_matches('.');
        let is_local = name.eq_ignore_ascii_case("localhost");
        let is_machine =
            !self.machine.is_empty() && first_part(name).eq_ignore_ascii_case(&self.machine);
        match (self.bound, address) {
            (bound, Some(address)) if bound.is_unspecified() => {
                bound.is_ipv6() || address.is_ipv4()
            }
            (bound, Some(address)) if bound.is_loopback() => address.is_loopback(),
            (bound, Some(address)) => bound == address,
            (bound, None) if bound.is_unspecified() => is_local || is_machine,
            (bound, None) if bound.is_loopback() => is_local,
            (_, None) => is_machine,
        }
    }
}

/// Returns a name without its domain.
fn first_part(name: &str) -> &str {
    name.split_once('.').map_or(name, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    /// Check the names of listeners that are bound to loopback, to one address, and to all
    /// addresses.
    #[test]
    fn names() {
        let has = |bound: &str, host| Hosts::new(bound.parse().unwrap(), "web1.example").has(host);
        for (bound, host, expected) in [
            ("127.0.0.1", "localhost:9913", true),
            ("127.0.0.1", "LOCALHOST.", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "[::1]:8080", true),
            ("127.0.0.1", "10.0.0.1:9913", false),
            ("127.0.0.1", "evil.example:9913", false),
            ("127.0.0.1", "web1", false),
            ("127.0.0.1", "", false),
            ("::1", "[::1]:9913", true),
            ("10.0.0.1", "10.0.0.1:9913", true),
            ("10.0.0.1", "10.0.0.2:9913", false),
            ("10.0.0.1", "web1:9913", true),
            ("10.0.0.1", "WEB1.example.org:9913", true),
            ("10.0.0.1", "web2", false),
            ("10.0.0.1", "localhost", false),
            ("0.0.0.0", "10.9.8.7:9913", true),
            ("0.0.0.0", "localhost", true),
            ("0.0.0.0", "web1", true),
            ("0.0.0.0", "evil.example", false),
            ("::", "[fe80::1]:9913", true),
            ("::", "10.9.8.7", true),
        ] {
            assert_eq!(has(bound, host), expected, "{bound}: {host}");
        }
    }
}
