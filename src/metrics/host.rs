// SPDX-License-Identifier: MIT OR Apache-2.0
//! By which names metrics may be asked for. A page in somebody's browser may have a name that leads to
//! an address in here (DNS rebinding): the name in `Host` is its own then, and none of ours.

use std::net::IpAddr;

use ngx_bpf_record::host::host_and_port;

/// The names of one listener.
pub struct Hosts {
    /// What it is bound to.
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

    /// Of a machine with this name.
    fn new(bound: IpAddr, machine: &str) -> Self {
        let machine = first_part(machine).to_ascii_lowercase();
        Self { bound, machine }
    }

    /// Whether a `Host` is one of them, with whatever port: it may be forwarded. Bound to loopback:
    /// `localhost` and the addresses of loopback. Bound to another address: that one, and the name of
    /// this machine, in whatever domain. Bound to all: any address, `localhost`, and that name.
    pub fn has(&self, host: &str) -> bool {
        let name = host_and_port(host).0;
        let address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let name = name.trim_end_matches('.');
        let is_local = name.eq_ignore_ascii_case("localhost");
        let is_machine =
            !self.machine.is_empty() && first_part(name).eq_ignore_ascii_case(&self.machine);
        let address = address.unwrap_or(name).parse::<IpAddr>().ok();
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

/// A name without its domain.
fn first_part(name: &str) -> &str {
    name.split_once('.').map_or(name, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    /// Check the names of what is bound to loopback, to an address, and to all.
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
