// SPDX-License-Identifier: MIT OR Apache-2.0
//! A time limit of clients, seen in the ages of the requests that they left (499).

use std::collections::BTreeMap;

use ngx_bpf_record::values::Part;

use crate::advise::Finding;
use crate::advise::collected::Collected;
use crate::advise::keepalive_race::densest;
use crate::advise::locations::Left;
use crate::advise::locations::Location;
use crate::advise::rule::FEW;
use crate::advise::rule::Least;
use crate::advise::rule::NOTICED_NS;
use crate::advise::rule::Rule;
use crate::advise::rule::is_share;
use crate::advise::rule::least;
use crate::advise::rule::lost;
use crate::advise::rule::part_of;
use crate::units::count;
use crate::units::time;

/// The least number of requests in the band.
const LEFT: u64 = 10;

/// The least share of the 499 of a location in the band, in percent.
const SHARE: u64 = 50;

/// How wide the band is, in percent of the shortest age in it.
const BAND: u64 = 5;

/// The rule.
pub const RULE: Rule = Rule {
    name: "client_time_limit",
    about: "time limits of clients",
    description: "clients leave after the same time: they have a time limit",
    verb: "look",
    thresholds: &[
        least(
            Least::Count(LEFT),
            "requests with status 499 whose ages differ by 5 % or less",
            "ages of people who leave differ by more: ten within 5 % are no chance",
        ),
        least(
            Least::Percent(SHARE),
            "of the requests with status 499 of the location in this band",
            "otherwise most left for another reason",
        ),
        least(
            Least::Time(NOTICED_NS),
            "of age",
            "no client has a shorter limit: those that leave at once had closed their connection before",
        ),
    ],
    page: include_str!("../../../../docs/advise/client_time_limit.md"),
    find,
};

/// Returns the findings.
fn find(collected: &Collected) -> Option<Vec<Finding>> {
    if collected.requests < FEW {
        return None;
    }
    let locations = collected.locations.named();
    Some(
        locations
            .filter_map(|(_, location)| finding(location))
            .collect(),
    )
}

/// Returns the finding of a location.
fn finding(location: &Location) -> Option<Finding> {
    let mut left: Vec<&Left> = location
        .left
        .iter()
        .filter(|left| left.age_ns >= NOTICED_NS)
        .collect();
    left.sort_by_key(|left| left.age_ns);
    let ages: Vec<u64> = left.iter().map(|left| left.age_ns).collect();
    let (from, agree) = densest(&ages, |age| age.saturating_add(age / 100 * BAND));
    let all = location.left.len() as u64;
    if (agree as u64) < LEFT || !is_share(agree as u128, u128::from(all), SHARE) {
        return None;
    }
    let band = &left[from..from + agree];
    let (shortest, longest) = (ages[from], ages[from + agree - 1]);
    let mut evidence = vec![format!(
        "{} with status 499 are {} to {} old",
        part_of(agree as u64, all, "request"),
        time(shortest),
        time(longest)
    )];
    evidence.extend(waited_for(band));
    let lost_ns = band.iter().map(|left| u128::from(left.age_ns)).sum();
    Some(Finding {
        rule: RULE.name,
        subject: location.subject(),
        title: format!("{}: clients leave after {}", location.subject(), time(shortest)),
        evidence,
        requests: Some(agree as u64),
        failed: agree as u64,
        lost_ns: lost(lost_ns),
        advice: vec![
            "whose limit is it: of the application, or of the proxy before nginx?".to_owned(),
            "proxy_read_timeout and proxy_next_upstream_timeout below it, so that nginx can answer in time".to_owned(),
            "the upstream that is waited for".to_owned(),
        ],
        config: location.config.clone(),
    })
}

/// Returns the sentence about what most of them waited for. `None` when it is not known.
fn waited_for(left: &[&Left]) -> Option<String> {
    let mut counts: BTreeMap<(Part, &str), u64> = BTreeMap::new();
    for left in left {
        if let Some(phase) = left.phase {
            let upstream = left.upstream.as_deref().unwrap_or_default();
            *counts.entry((phase, upstream)).or_default() += 1;
        }
    }
    let ((phase, upstream), number) = counts.into_iter().max_by_key(|(_, number)| *number)?;
    let number = count(number);
    Some(match phase {
        Part::UpstreamConnect => format!("{number} while nginx connected to {upstream}"),
        Part::UpstreamWait => format!("{number} while {upstream} had not begun its response"),
        Part::UpstreamRequest | Part::UpstreamResponse => {
            format!("{number} while nginx exchanged data with {upstream}")
        }
        Part::ClientRequest | Part::ClientBody => format!("{number} while they sent their request"),
        Part::ClientResponse => format!("{number} while they took the response"),
        Part::BeforeUpstream | Part::BeforeResponse => {
            format!("{number} while nginx had the request")
        }
    })
}

#[cfg(test)]
mod tests {
    use ngx_bpf_record::values::End;
    use ngx_bpf_record::values::Part;

    use super::RULE;
    use crate::advise::samples::Sample;
    use crate::advise::samples::found;

    /// Returns requests that were left at these ages.
    fn requests(ages: &[u64]) -> Vec<Sample> {
        let fine = (0..30).map(Sample::at_ms);
        let left = ages.iter().map(|age| {
            let mut sample = Sample::at_ms(5);
            sample.set_elapsed(*age);
            sample.0.status = Some(499);
            sample.0.ending.end = Some(End::ClientClosed);
            sample.0.ending.last_phase = Some(Part::UpstreamWait);
            sample.0.upstream_addr = Some("10.0.1.5:8080".into());
            sample
        });
        fine.chain(left).collect()
    }

    /// Check ages that agree.
    #[test]
    fn provoked() {
        let mut ages: Vec<u64> = (0..12).map(|n| 2_000_000_000 + n * 1_000_000).collect();
        ages.extend([5_000_000, 9_000_000_000]);
        let findings = found(RULE.name, requests(&ages));
        assert_eq!(findings.len(), 1);
        let finding = &findings[0];
        assert_eq!(
            finding.title,
            "/api/ of shop.example: clients leave after 2.00 s"
        );
        assert_eq!(
            finding.evidence,
            [
                "12 of 14 requests (86 %) with status 499 are 2.00 s to 2.01 s old",
                "12 while 10.0.1.5:8080 had not begun its response",
            ]
        );
        assert_eq!(
            (finding.requests, finding.failed, finding.lost_ns),
            (Some(12), 12, Some(24_066_000_000))
        );
    }

    /// Check that few, ages that differ, and clients that leave at once are no finding.
    #[test]
    fn silent() {
        assert!(found(RULE.name, requests(&[2_000_000_000; 9])).is_empty());
        let differ: Vec<u64> = (1..40).map(|n| n * 300_000_000).collect();
        assert!(found(RULE.name, requests(&differ)).is_empty());
        assert!(found(RULE.name, requests(&[90_000_000; 40])).is_empty());
    }
}
