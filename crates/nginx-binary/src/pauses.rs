// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions that show in nginx's memory that nginx itself makes a request wait: it stores their addresses.

use crate::elf::Elf;
use crate::sites::ProbeSite;
use crate::sites::waits;

/// The module whose phase handler makes a request wait for a subrequest.
pub const AUTH_REQUEST: &str = "ngx_http_auth_request_module";

/// The addresses of these functions in a binary, as linked. `None`: the build lacks the function, or its code does
/// not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PausePlaces {
    /// `ngx_http_limit_req_delay()`: the `write_event_handler` of a request that `limit_req` delays.
    pub limit_req_delay: Option<u64>,
    /// `ngx_http_core_run_phases()`: the `write_event_handler` of a request that a handler of a phase makes wait,
    /// unless that handler sets another one.
    pub run_phases: Option<u64>,
    /// `ngx_http_auth_request_handler()`: the handler of a phase.
    pub auth_request: Option<u64>,
    /// The program headers, whose real address the kernel passes to the process.
    program_headers: Option<u64>,
}

impl PausePlaces {
    /// Finds them. The wake-ups are among the places of probes.
    pub(crate) fn locate(elf: &Elf<'_>, sites: &[ProbeSite]) -> Self {
        let wake_up = sites
            .iter()
            .find(|site| site.function == waits::LIMIT_REQ_DELAY);
        Self {
            limit_req_delay: wake_up.map(|site| site.address - site.entry_offset),
            run_phases: elf
                .symbol("ngx_http_core_run_phases")
                .map(|symbol| symbol.address),
            auth_request: waits::phase_handler(elf, AUTH_REQUEST),
            program_headers: elf.program_headers(),
        }
    }

    /// Returns the same in a process that has its program headers at this address.
    #[must_use]
    pub fn in_process(&self, program_headers: u64) -> Self {
        let moved = self
            .program_headers
            .map(|linked| program_headers.wrapping_sub(linked));
        let real = |address: Option<u64>| Some(address?.wrapping_add(moved?));
        Self {
            limit_req_delay: real(self.limit_req_delay),
            run_phases: real(self.run_phases),
            auth_request: real(self.auth_request),
            program_headers: Some(program_headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PausePlaces;

    /// Check that each address moves with the program headers, and that none is known where these are not.
    #[test]
    fn in_process() {
        let linked = PausePlaces {
            limit_req_delay: Some(0x1000),
            run_phases: None,
            auth_request: Some(0x2000),
            program_headers: Some(0x40),
        };
        let real = linked.in_process(0x7000_0040);
        assert_eq!(real.limit_req_delay, Some(0x7000_1000));
        assert_eq!(real.run_phases, None);
        assert_eq!(real.auth_request, Some(0x7000_2000));
        let unknown = PausePlaces {
            program_headers: None,
            ..linked
        };
        assert_eq!(unknown.in_process(0x7000_0040).auth_request, None);
    }
}
