// SPDX-License-Identifier: MIT OR Apache-2.0
//! An attempt at an upstream in its request: what follows from the two together.

use std::borrow::Cow;

use crate::attempt::Attempt;
use crate::request::Request;
use crate::values::Failure;

/// The lowest status that is an error for a client.
const CLIENT_ERROR: u32 = 400;

/// An attempt, and what its request says about it.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'r, 'a> {
    /// The request.
    pub request: &'r Request<'a>,
    /// The attempt.
    pub attempt: &'r Attempt<'a>,
    /// The attempts that followed it, of the request or of the same subrequest.
    rest: &'r [Attempt<'a>],
    /// Whether it is one of the request, and not of a subrequest.
    is_own: bool,
}

impl<'r, 'a> Tried<'r, 'a> {
    /// Returns the attempts of a request, or of one of its subrequests.
    pub fn all(
        request: &'r Request<'a>,
        attempts: &'r [Attempt<'a>],
        is_own: bool,
    ) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        attempts.iter().enumerate().map(move |(n, attempt)| Self {
            request,
            attempt,
            rest: &attempts[n + 1..],
            is_own,
        })
    }

    /// Returns the address of the server. `None` where nginx had not chosen one, also since none was alive.
    pub fn addr(&self) -> Option<&'r str> {
        let is_chosen = self.attempt.failure != Some(Failure::NoLiveUpstreams);
        self.attempt.addr.as_deref().filter(|_| is_chosen)
    }

    /// Returns the group of the upstream. It is the request's, which is that of its last attempt: `None` for a subrequest,
    /// and for an attempt before an internal redirect.
    pub fn group(&self) -> Option<&'r str> {
        let is_redirected = self.request.place.redirects.is_some();
        let is_certain = self.is_own && (self.rest.is_empty() || !is_redirected);
        let group = self.request.place.upstream_name.as_deref();
        group.filter(|_| is_certain)
    }

    /// Returns the name of the row of its upstream.
    pub fn row_name(&self) -> String {
        let (group, addr) = (self.group(), self.addr());
        format!(
            "{}\t{}",
            group.unwrap_or_default(),
            addr.unwrap_or_default()
        )
    }

    /// Returns the method with which nginx asked, which is that of the request, unless nginx may have changed it: a cache
    /// makes GET of HEAD (`proxy_cache_convert_head`), and `error_page` of any other method. That of a subrequest is not
    /// known, and `proxy_method` is not seen.
    pub fn method(&self) -> Option<&'r str> {
        let request = self.request;
        let method = request.request_method.as_deref();
        let is_converted = method == Some("HEAD") && request.upstream_cache_status.is_some();
        let is_changed = is_converted || request.place.redirects.is_some();
        method.filter(|_| self.is_own && !is_changed)
    }

    /// Returns whether another attempt followed it.
    pub fn is_retried(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Returns whether it is the last attempt that the client waited for.
    pub fn is_answer(&self) -> bool {
        let is_last = self.rest.iter().all(|next| next.post_action);
        self.is_own && is_last && !self.attempt.post_action
    }

    /// Returns the status that the upstream sent. nginx itself sets 502 or 504 where no header came.
    pub fn own_status(&self) -> Option<u32> {
        let attempt = self.attempt;
        let status = attempt.status?;
        let is_nginx = matches!(status, 502 | 504) && attempt.response_header_ns.is_none();
        let is_of_status = attempt.failure.is_none_or(Failure::is_of_status);
        (!is_nginx || is_of_status).then_some(status)
    }

    /// Returns the value of OpenTelemetry's `error.type`, if it has one: the failure, else a status of 400 and above.
    pub fn error_type(&self) -> Option<Cow<'static, str>> {
        if let Some(failure) = self.attempt.failure {
            return Some(failure.name().into());
        }
        let status = self.own_status();
        let status = status.filter(|status| *status >= CLIENT_ERROR)?;
        Some(status.to_string().into())
    }

    /// Returns when nginx was done with it, on the clock of `phases`: with the last byte of the response or, if it waited
    /// for more in vain, with what followed. `None` when that is not known.
    pub fn end(&self) -> Option<u64> {
        let attempt = self.attempt;
        let last = attempt.upstream_response_last_byte_time;
        let last = last.or(attempt.upstream_response_first_byte_time);
        let has_waited = matches!(
            attempt.failure,
            Some(
                Failure::Timeout
                    | Failure::SendTimeout
                    | Failure::Closed
                    | Failure::Reset
                    | Failure::ClientClosed
            )
        );
        match last {
            Some(_) if !has_waited => last,
            Some(last) => self.followed(last).map(|followed| followed.max(last)),
            None if attempt.failure.is_none() => None,
            None => self.followed(0),
        }
    }

    /// Returns how long it took. `None` when it is not known when it began, or ended.
    pub fn lasted(&self) -> Option<u64> {
        self.end()?.checked_sub(self.attempt.upstream_connect_time?)
    }

    /// Returns when nginx went on after a failure: to the next attempt, to its own response if that began after what came
    /// of this one, or to the end of the request. `None` when that is not known.
    fn followed(&self, last: u64) -> Option<u64> {
        if let Some(next) = self.rest.first().filter(|next| !next.post_action) {
            return next.upstream_connect_time;
        }
        let phases = &self.request.phases;
        let answered = phases.downstream_response_first_byte_time;
        let end = || {
            let first = phases.downstream_request_first_byte_time?;
            first.checked_add(self.request.elapsed_ns?)
        };
        let followed = answered.filter(|answered| *answered > last).or_else(end);
        followed.filter(|_| self.is_answer())
    }
}

impl<'a> Request<'a> {
    /// Returns all attempts: those of the request, and then those of its subrequests.
    pub fn tried(&self) -> impl Iterator<Item = Tried<'_, 'a>> {
        let subrequests = self.subrequests.iter();
        let subrequests = subrequests.flat_map(|sub| Tried::all(self, &sub.upstreams, false));
        Tried::all(self, &self.upstreams, true).chain(subrequests)
    }
}

#[cfg(test)]
mod tests {
    use crate::attempt::Attempt;
    use crate::phases::Phases;
    use crate::request::Request;
    use crate::subrequest::Subrequest;
    use crate::values::CacheStatus;
    use crate::values::Failure;

    /// Returns an attempt with these times.
    fn attempt(begin: u64, last: Option<u64>, failure: Option<Failure>) -> Attempt<'static> {
        Attempt {
            upstream_connect_time: Some(begin),
            upstream_response_last_byte_time: last,
            failure,
            ..Default::default()
        }
    }

    /// Returns a request that lasted from 5 to 105.
    fn request(upstreams: Vec<Attempt<'static>>) -> Request<'static> {
        Request {
            upstreams,
            phases: Phases {
                downstream_request_first_byte_time: Some(5),
                ..Default::default()
            },
            elapsed_ns: Some(100),
            request_method: Some("HEAD".into()),
            ..Default::default()
        }
    }

    /// Returns how long the attempts took.
    fn lasted(request: &Request<'_>) -> Vec<Option<u64>> {
        request.tried().map(|tried| tried.lasted()).collect()
    }

    /// Check how long attempts without a response took: one that failed until the next one began, the last one until
    /// nginx answered or the request ended, and none that is not known to have ended.
    #[test]
    fn without_response() {
        let mut request = request(vec![
            attempt(10, None, Some(Failure::ConnectTimeout)),
            attempt(30, Some(35), None),
            attempt(40, None, Some(Failure::ConnectError)),
            attempt(50, None, Some(Failure::Timeout)),
        ]);
        assert_eq!(lasted(&request), [Some(20), Some(5), Some(10), Some(55)]);
        request.upstreams[2].upstream_connect_time = None;
        assert_eq!(lasted(&request), [Some(20), Some(5), None, Some(55)]);
        request.phases.downstream_response_first_byte_time = Some(60);
        assert_eq!(lasted(&request)[3], Some(10));
        request.upstreams[3].failure = None;
        assert_eq!(lasted(&request)[3], None);
    }

    /// Check an attempt that failed in the middle of its response, which nginx had begun to pass on: it is over when the
    /// request is, or when the next one begins.
    #[test]
    fn cut_short() {
        for failure in [Failure::Timeout, Failure::Closed, Failure::ClientClosed] {
            let mut request = request(vec![attempt(10, Some(20), Some(failure))]);
            assert_eq!(lasted(&request), [Some(95)]);
            request.phases.downstream_response_first_byte_time = Some(15);
            assert_eq!(lasted(&request), [Some(95)]);
            request.phases.downstream_response_first_byte_time = Some(60);
            assert_eq!(lasted(&request), [Some(50)]);
            request.upstreams.push(attempt(40, Some(50), None));
            assert_eq!(lasted(&request), [Some(30), Some(10)]);
        }
        let refused = request(vec![attempt(10, Some(20), Some(Failure::InvalidHeader))]);
        assert_eq!(lasted(&refused), [Some(10)]);
    }

    /// Check the type of an error: the failure, else the status that the upstream sent.
    #[test]
    fn error_types() {
        for (status, failure, expected) in [
            (200, None, None),
            (399, None, None),
            (404, None, Some("404")),
            (404, Some(Failure::Closed), Some("closed")),
            (502, None, Some("502")),
            (502, Some(Failure::ConnectError), Some("connect_error")),
        ] {
            let mut attempt = attempt(10, None, failure);
            attempt.status = Some(status);
            let request = request(vec![attempt]);
            let error = request.tried().next().unwrap().error_type();
            assert_eq!(error.as_deref(), expected, "{status} {failure:?}");
        }
    }

    /// Check that what an attempt of a subrequest, of `post_action` or before a redirect does not have is absent.
    #[test]
    fn not_known() {
        let mut request = request(vec![
            attempt(10, Some(20), None),
            attempt(30, None, Some(Failure::Timeout)),
        ]);
        request.place.upstream_name = Some("app".into());
        request.subrequests.push(Subrequest {
            upstreams: vec![attempt(10, Some(12), Some(Failure::Closed))],
            ..Default::default()
        });
        let of = |request: &Request<'static>| {
            let all = request.tried();
            let all = all.map(|tried| {
                let texts = [tried.group(), tried.method()].map(|text| text.map(str::to_owned));
                (texts, tried.is_answer())
            });
            all.collect::<Vec<_>>()
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            of(&request),
            [
                ([text("app"), text("HEAD")], false),
                ([text("app"), text("HEAD")], true),
                ([None, None], false)
            ]
        );
        assert_eq!(lasted(&request)[2], None);
        request.place.redirects = Some(1);
        assert_eq!(of(&request)[0].0, [None, None]);
        assert_eq!(of(&request)[1].0, [text("app"), None]);
        request.place.redirects = None;
        request.upstream_cache_status = Some(CacheStatus::Miss);
        assert_eq!(of(&request)[0].0, [text("app"), None]);
        request.upstreams[1].post_action = true;
        assert_eq!([of(&request)[0].1, of(&request)[1].1], [true, false]);
        assert_eq!(lasted(&request)[1], None);
    }
}
