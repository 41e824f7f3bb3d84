// SPDX-License-Identifier: MIT OR Apache-2.0
//! The labels that say where in the configuration requests were handled.

use std::borrow::Cow;

use ngx_bpf_record::Request;

use super::labels::Labels;
use super::labels::NONE;
use super::labels::OTHER;
use super::labels::safe_value;

/// The place of requests, by the names that nginx's configuration gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PlaceLabels {
    pub location: String,
    pub server_name: String,
    upstream_name: String,
}

impl PlaceLabels {
    /// Returns the labels of a request. A part that it does not have is `none`.
    pub fn of(request: &Request<'_>) -> Self {
        let label = |name: &Option<Cow<'_, str>>| safe_value(name.as_deref().unwrap_or(NONE));
        Self {
            location: label(&request.place.location),
            server_name: label(&request.place.server_name),
            /* Clients may choose the others. */
            upstream_name: match request.place.is_upstream_of_variable {
                true => OTHER.to_owned(),
                false => label(&request.place.upstream_name),
            },
        }
    }

    /// Returns the labels of places that have none of their own.
    pub fn other() -> Self {
        let other = || OTHER.to_owned();
        Self {
            location: other(),
            server_name: other(),
            upstream_name: other(),
        }
    }

    /// Appends names and values.
    pub fn append_to(&self, labels: &mut Labels) {
        labels.extend([
            ("location", self.location.clone()),
            ("server_name", self.server_name.clone()),
            ("upstream_name", self.upstream_name.clone()),
        ]);
    }
}
