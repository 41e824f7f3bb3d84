// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a record that name its container, found by the number that the record has.

use std::borrow::Cow;
use std::sync::Arc;

use crate::follow::containers::ContainersByNumber;
use crate::host::container::Container;

/// The containers of the processes that records come from.
pub struct ContainerKeys {
    numbered: ContainersByNumber,
    /// The container of the last record that has one: most records have the same.
    last: Option<(u32, Arc<Container>)>,
}

impl ContainerKeys {
    pub fn new(numbered: ContainersByNumber) -> Self {
        Self {
            numbered,
            last: None,
        }
    }

    /// Returns the keys that name the container with this number: none for 0. `None` when it is no longer
    /// known.
    pub fn keys(&mut self, number: u32) -> Option<ngx_bpf_record::Container<'_>> {
        if number == 0 {
            return Some(ngx_bpf_record::Container::default());
        }
        self.container(number).map(keys)
    }

    /// Returns the container with a number that is not 0. `None` when it is no longer known.
    fn container(&mut self, number: u32) -> Option<&Container> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            self.last = Some((number, self.numbered.get(number)?));
        }
        self.last.as_ref().map(|(_, container)| container.as_ref())
    }
}

/// Returns the keys that name a container.
fn keys<'a>(container: &'a Container) -> ngx_bpf_record::Container<'a> {
    let text = |text: &'a Option<String>| text.as_deref().map(Cow::Borrowed);
    ngx_bpf_record::Container {
        container_id: text(&container.id),
        pod_uid: text(&container.pod_uid),
        pod: text(&container.pod),
        namespace: text(&container.namespace),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::ContainerKeys;
    use crate::follow::containers::ContainerNumbers;
    use crate::host::container::Container;

    /// Check that records of several containers get the right one, whatever came before them.
    #[test]
    fn found() {
        let mut numbers = ContainerNumbers::default();
        let mut keys = ContainerKeys::new(numbers.numbered());
        for id in ["a", "b"] {
            let id = Some(id.to_owned());
            let container = Container {
                id,
                ..Container::default()
            };
            numbers.number(Some(&Arc::new(container)));
        }
        for (number, id) in [
            (1, Some("a")),
            (1, Some("a")),
            (2, Some("b")),
            (3, None),
            (2, Some("b")),
            (1, Some("a")),
        ] {
            let found = keys.container(number);
            assert_eq!(found.and_then(|found| found.id.as_deref()), id, "{number}");
        }
    }
}
