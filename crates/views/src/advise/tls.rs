// SPDX-License-Identifier: MIT OR Apache-2.0
//! TLS handshakes that the clients of a listener do again and again.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::listeners::Listener;
use crate::advise::listeners::Tls;
use crate::advise::rule::Least;
use crate::advise::rule::MANY;
use crate::advise::rule::MANY_FROM;
use crate::advise::rule::Rule;
use crate::advise::rule::enough;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::units::count;
use crate::units::percent;
use crate::units::time;

/// The least share of requests with a handshake before them, in percent.
const FIRST: u64 = 50;

/// The least share of handshakes of clients that had had one, in percent.
const AGAIN: u64 = 50;

/// The least share of the time for handshakes, in percent.
const TIME: u64 = 10;

/// The rule.
pub const RULE: Rule = Rule {
    name: "tls_handshakes",
    about: "TLS handshakes",
    description: "the same clients do a TLS handshake for nearly every request",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(MANY),
            "TLS handshakes at the listener",
            MANY_FROM,
        ),
        least(
            Least::Percent(FIRST),
            "of its requests with a handshake before them",
            "where connections are kept, they have two requests at least",
        ),
        least(
            Least::Percent(AGAIN),
            "of the handshakes of addresses that had had one before",
            "a client that comes for the first time has no connection and no session to use again",
        ),
        least(
            Least::Percent(TIME),
            "of the time of handshakes and requests for these handshakes",
            "a handshake is needed at times, and less of it does not move the p90 of anything",
        ),
    ],
    page: include_str!("../../../../docs/advise/tls_handshakes.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let has_enough = |listener: &Listener| listener.tls.handshakes.count() >= MANY;
    let enough = enough(&collected.listeners.rows, has_enough)?.into_iter();
    let found = enough.filter(|listener| is_found(&listener.tls));
    Some(found.map(finding).collect())
}

/// Returns whether handshakes cost too much.
fn is_found(tls: &Tls) -> bool {
    let handshakes = u128::from(tls.handshakes.count());
    let again = u128::from(tls.again.count());
    is_share(handshakes, u128::from(tls.requests), FIRST)
        && is_share(again, handshakes, AGAIN)
        && is_share(tls.again.sum_ns(), tls.time_ns(), TIME)
}

impl Tls {
    /// Returns how long requests took with their handshakes.
    fn time_ns(&self) -> u128 {
        self.handshakes.sum_ns() + self.elapsed_ns
    }
}

/// Returns the finding of a listener.
fn finding(listener: &Listener) -> Finding {
    let Tls {
        requests,
        handshakes,
        again,
        ..
    } = &listener.tls;
    let of = |share| time(handshakes.quantile(share).unwrap_or_default());
    Finding {
        rule: RULE.name,
        subject: listener.name.clone(),
        title: format!("{}: clients repeat TLS handshakes", listener.name),
        evidence: vec![
            format!("{} began with a handshake", part_of(handshakes.count(), *requests, "request")),
            format!(
                "{} of them of addresses that had had one before",
                count(again.count())
            ),
            format!(
                "a handshake took p50 {}, p99 {}; those took {} of all time",
                of(0.5),
                of(0.99),
                percent(again.sum_ns(), listener.tls.time_ns())
            ),
            "whether a session was used again, the records do not show".to_owned(),
        ],
        requests: Some(again.count()),
        failed: 0,
        lost_ns: lost(again.sum_ns()),
        advice: vec![
            "keepalive_timeout and keepalive_requests, so that connections are kept".to_owned(),
            "ssl_session_cache shared:SSL:10m; ssl_session_timeout 1d; (without a cache no session is kept)".to_owned(),
            "do the clients, or the proxy before nginx, ask for it?".to_owned(),
        ],
        config: None,
    }
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Scheme;

    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests of clients that send `kept` requests on each connection.
    fn requests(number: u64, clients: u64, kept: u64, elapsed_ns: u64) -> Vec<Sample> {
        (0..number)
            .map(|n| {
                let mut sample = Sample::at_ms(n);
                sample.0.scheme = Scheme::Https;
                sample.0.remote_addr = Some(format!("client-{}", n / kept % clients).into());
                sample.0.tls.tls_handshake_ns = n.is_multiple_of(kept).then_some(2_000_000);
                sample.set_elapsed(elapsed_ns);
                sample
            })
            .collect()
    }

    /// Check a few clients that never keep a connection.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, requests(200, 10, 1, 3_000_000));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].title,
            "10.0.0.1:443: clients repeat TLS handshakes"
        );
        assert_eq!(
            findings[0].evidence,
            [
                "200 of 200 requests (100 %) began with a handshake",
                "190 of them of addresses that had had one before",
                "a handshake took p50 2.00 ms, p99 2.00 ms; those took 38 % of all time",
                "whether a session was used again, the records do not show",
            ]
        );
        assert_eq!(
            (findings[0].requests, findings[0].lost_ns),
            (Some(190), Some(380_000_000))
        );
    }

    /// Check that few handshakes, clients that come once, kept connections and cheap handshakes are no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(99, 10, 1, 3_000_000)).is_empty());
        assert!(found(RULE.name, requests(200, 200, 1, 3_000_000)).is_empty());
        assert!(found(RULE.name, requests(400, 10, 3, 3_000_000)).is_empty());
        assert!(found(RULE.name, requests(200, 10, 1, 30_000_000)).is_empty());
    }
}
