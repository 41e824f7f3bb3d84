// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that are not idempotent, and were sent to a second server when the first may have done what they ask.

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::locations::Location;
use crate::advise::rule::FEW;
use crate::advise::rule::Least;
use crate::advise::rule::Rule;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::units::counted;

/// The least number of requests.
const REPEATED: u64 = 1;

/// The rule.
pub const RULE: Rule = Rule {
    name: "retry_not_idempotent",
    about: "retries of what is not idempotent",
    description: "a POST, LOCK or PATCH that a server may have processed was sent again",
    verb: "needs",
    thresholds: &[least(
        Least::Count(REPEATED),
        "such request",
        "one order that is made twice is one too many, and nginx never does it by default",
    )],
    page: include_str!("../../../../docs/advise/retry_not_idempotent.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    let locations = collected.locations.named().map(|(_, location)| location);
    let found: Vec<Finding> = locations.filter_map(finding).collect();
    (collected.requests >= FEW || !found.is_empty()).then_some(found)
}

/// Returns the finding of a location.
fn finding(location: &Location) -> Option<Finding> {
    let repeated = &location.repeated;
    let (method, failure) = repeated.last.as_ref()?;
    if repeated.count < REPEATED {
        return None;
    }
    Some(Finding {
        rule: RULE.name,
        subject: location.subject(),
        title: format!("{}: requests may be processed twice", location.subject()),
        evidence: vec![
            format!(
                "{} (POST, LOCK, PATCH) sent again after a server had it whole",
                counted(repeated.count, "request")
            ),
            format!(
                "the last one: {method}, after {failure}; {} at most",
                counted(repeated.tries_max as u64, "attempt")
            ),
        ],
        requests: Some(repeated.count),
        failed: 0,
        lost_ns: lost(repeated.lasted_ns),
        advice: vec![
            "proxy_next_upstream without non_idempotent".to_owned(),
            "an error_page that proxies again, in this location".to_owned(),
        ],
        config: location.config.clone(),
    })
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::Failure;

    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns a request whose first attempt failed, and whose second one was answered.
    fn request(method: &'static str, failure: Failure) -> Sample {
        let sample = Sample::at_ms(0).upstream("app", "10.0.0.1:80", 60_000_000_000);
        let mut sample = sample.upstream("app", "10.0.0.2:80", 1_000_000);
        sample.fail(0, failure, 504);
        sample.0.request_method = Some(method.into());
        sample
    }

    /// Check an order that may be made twice.
    #[test]
    fn provoked() {
        let findings = found(RULE.name, vec![request("POST", Failure::Timeout)]);
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].title,
            "/api/ of shop.example: requests may be processed twice"
        );
        assert_eq!(
            findings[0].evidence,
            [
                "1 request (POST, LOCK, PATCH) sent again after a server had it whole",
                "the last one: POST, after timeout; 2 attempts at most",
            ]
        );
        assert_eq!(
            (findings[0].requests, findings[0].lost_ns),
            (Some(1), Some(60_000_000_000))
        );
    }

    /// Check that what is idempotent, what was not sent and what was refused is no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, vec![request("GET", Failure::Timeout)]).is_empty());
        assert!(found(RULE.name, vec![request("POST", Failure::Http429)]).is_empty());
        let mut unsent = request("POST", Failure::ConnectTimeout);
        unsent.attempt(0).upstream_request_first_byte_time = None;
        unsent.attempt(0).upstream_request_last_byte_time = None;
        assert!(found(RULE.name, vec![unsent]).is_empty());
    }
}
