// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of a record that name its container, found by the number that the record has.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::follow::containers::ContainerChange;
use crate::host::container::Container;

/// The number of containers that are kept after their last process has ended, since records of it
/// may still come.
const ENDED_MAX: usize = 64;

/// The containers of the processes that records come from.
pub struct ContainerKeys {
    changes: Receiver<ContainerChange>,
    known: BTreeMap<u32, Arc<Container>>,
    /// The numbers of those that have ended, in order.
    ended: VecDeque<u32>,
}

impl ContainerKeys {
    pub fn new(changes: Receiver<ContainerChange>) -> Self {
        Self {
            changes,
            known: BTreeMap::new(),
            ended: VecDeque::new(),
        }
    }

    /// Returns the container with a number. `None` when the process is in none.
    pub fn container(&mut self, number: u32) -> Option<&Container> {
        if number == 0 {
            return None;
        }
        if !self.known.contains_key(&number) {
            self.update();
        }
        self.known.get(&number).map(Arc::as_ref)
    }

    /// Takes over the changes since the last call.
    pub fn update(&mut self) {
        for change in self.changes.try_iter() {
            match change {
                ContainerChange::Added(number, container) => {
                    self.known.insert(number, container);
                }
                ContainerChange::Ended(number) => self.ended.push_back(number),
            }
        }
        while self.ended.len() > ENDED_MAX {
            if let Some(number) = self.ended.pop_front() {
                self.known.remove(&number);
            }
        }
    }
}

/// Returns the keys of a request that name its container.
pub fn keys<'a>(container: &'a Container) -> ngx_bpf_record::Container<'a> {
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

    use crossbeam_channel::unbounded;

    use super::ContainerKeys;
    use super::ENDED_MAX;
    use crate::follow::containers::ContainerChange;
    use crate::host::container::Container;

    /// Check that a container is found as soon as it is announced, also for some time after its end,
    /// and that the number of those that are kept is bounded.
    #[test]
    fn kept() {
        let (changes, receiver) = unbounded();
        let mut keys = ContainerKeys::new(receiver);
        for number in 1..=1000 {
            let added = ContainerChange::Added(number, Arc::new(Container::default()));
            changes.send(added).unwrap();
            assert!(keys.container(number).is_some());
            changes.send(ContainerChange::Ended(number)).unwrap();
        }
        keys.update();
        assert!(keys.container(0).is_none() && keys.container(1001).is_none());
        assert!(keys.container(1000).is_some() && keys.container(1).is_none());
        assert_eq!(keys.known.len(), ENDED_MAX);
    }
}
