// SPDX-License-Identifier: MIT OR Apache-2.0
//! The containers of traced processes: which of them are wanted, and the number of each. BPF keeps
//! the number with a master and its workers, and writes it into their records, so that a record
//! never has the container of a later process with the same pid.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::unbounded;

use crate::host::container::Container;

/// The containers and pods that the user named.
#[derive(Clone, Debug, Default)]
pub struct ContainerFilter {
    /// The beginnings of ids; empty for any container, and for none.
    pub ids: Vec<String>,
    /// The pods, each with its namespace if the user named that; empty for any pod, and for none.
    pub pods: Vec<(Option<String>, String)>,
}

impl ContainerFilter {
    /// Returns whether the user named any.
    pub fn is_set(&self) -> bool {
        !self.ids.is_empty() || !self.pods.is_empty()
    }

    /// Returns whether processes of this container are wanted. `None`: processes in no container.
    pub fn lets_through(&self, container: Option<&Container>) -> bool {
        let id = container.and_then(|container| container.id.as_deref());
        let pod = container.and_then(|container| container.pod.as_deref());
        let namespace = container.and_then(|container| container.namespace.as_deref());
        let has_id = |named: &String| id.is_some_and(|id| id.starts_with(named));
        let has_pod = |(wanted, name): &(Option<String>, String)| {
            pod == Some(name) && (wanted.is_none() || wanted.as_deref() == namespace)
        };
        (self.ids.is_empty() || self.ids.iter().any(has_id))
            && (self.pods.is_empty() || self.pods.iter().any(has_pod))
    }
}

/// A change of the numbered containers.
pub enum ContainerChange {
    /// Records with this number are of processes in this container.
    Added(u32, Arc<Container>),
    /// No traced process has this number any more. Records of such processes may still come.
    Ended(u32),
}

/// The numbers of the containers of traced processes.
pub struct ContainerNumbers {
    live: BTreeMap<u32, Arc<Container>>,
    last: u32,
    changes: Sender<ContainerChange>,
}

impl ContainerNumbers {
    /// Creates an empty table, and the receiver of its changes.
    pub fn new() -> (Self, Receiver<ContainerChange>) {
        let (changes, receiver) = unbounded();
        let numbers = Self {
            live: BTreeMap::new(),
            last: 0,
            changes,
        };
        (numbers, receiver)
    }

    /// Returns the number of a container; 0 for none. A new number is announced before any process
    /// is traced with it.
    pub fn number(&mut self, container: Option<&Arc<Container>>) -> u32 {
        let Some(container) = container else {
            return 0;
        };
        let mut live = self.live.iter();
        if let Some((number, _)) = live.find(|(_, known)| *known == container) {
            return *number;
        }
        self.last = self.last.wrapping_add(1).max(1);
        let number = self.last;
        self.live.insert(number, Arc::clone(container));
        /* Without a receiver there are no more records. */
        let added = ContainerChange::Added(number, Arc::clone(container));
        let _ = self.changes.send(added);
        number
    }

    /// Forgets the containers of which no traced process is left.
    pub fn retain(&mut self, traced: &BTreeSet<u32>) {
        let (changes, live) = (&self.changes, &mut self.live);
        live.retain(|number, _| {
            let is_live = traced.contains(number);
            if !is_live {
                let _ = changes.send(ContainerChange::Ended(*number));
            }
            is_live
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::ContainerChange;
    use super::ContainerFilter;
    use super::ContainerNumbers;
    use crate::host::container::Container;

    /// Returns a container in a pod.
    fn container() -> Container {
        Container {
            id: Some("0123456789abcdef".repeat(4)),
            pod: Some("web-0".to_owned()),
            namespace: Some("shop".to_owned()),
            ..Container::default()
        }
    }

    /// Check which containers the filters let through.
    #[test]
    fn filters() {
        let pod = |namespace: Option<&str>, name: &str| {
            vec![(namespace.map(str::to_owned), name.to_owned())]
        };
        let ids = |id: &str| vec![id.to_owned()];
        for (ids, pods, expected) in [
            (vec![], vec![], true),
            (ids("0123456789ab"), vec![], true),
            (ids("123456789abc"), vec![], false),
            (vec![], pod(None, "web-0"), true),
            (vec![], pod(None, "web"), false),
            (vec![], pod(Some("shop"), "web-0"), true),
            (vec![], pod(Some("other"), "web-0"), false),
            (ids("0123456789ab"), pod(None, "web-1"), false),
        ] {
            let filter = ContainerFilter { ids, pods };
            let found = filter.lets_through(Some(&container()));
            assert_eq!(found, expected, "{filter:?}");
            assert_eq!(filter.lets_through(None), !filter.is_set());
        }
    }

    /// Check that a container has one number while one of its processes is traced, and that no
    /// number is given twice.
    #[test]
    fn numbers() {
        let (mut numbers, changes) = ContainerNumbers::new();
        let one = Arc::new(container());
        let two = Arc::new(Container::default());
        assert_eq!(numbers.number(None), 0);
        assert_eq!(numbers.number(Some(&one)), 1);
        assert_eq!(numbers.number(Some(&two)), 2);
        assert_eq!(numbers.number(Some(&Arc::new(container()))), 1);
        numbers.retain(&BTreeSet::from([0, 2]));
        assert_eq!(numbers.number(Some(&one)), 3);
        let changes: Vec<_> = changes.try_iter().collect();
        assert!(matches!(changes[2], ContainerChange::Ended(1)));
        assert!(matches!(changes[3], ContainerChange::Added(3, _)));
        assert_eq!(changes.len(), 4);
    }
}
