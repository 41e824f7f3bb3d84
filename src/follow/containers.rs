// SPDX-License-Identifier: MIT OR Apache-2.0
//! The containers of traced processes: which of them are wanted, and the number of each. BPF keeps
//! the number with a master and its workers, and writes it into their records, so that a record
//! never has the container of a later process with the same pid.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::host::container::Container;
use crate::host::container::PodName;

/// The containers and pods that the user named.
#[derive(Clone, Debug, Default)]
pub struct ContainerFilter {
    /// The beginnings of ids; empty for any container, and for none.
    pub ids: Vec<String>,
    /// The pods, each with its namespace if the user named that; empty for any pod, and for none.
    pub pods: Vec<PodName>,
}

impl ContainerFilter {
    /// Returns whether the user named any.
    pub fn is_set(&self) -> bool {
        !self.ids.is_empty() || !self.pods.is_empty()
    }

    /// Returns whether processes of this container are wanted. `None`: processes in no container.
    pub fn lets_through(&self, container: Option<&Container>) -> bool {
        let id = container.and_then(|container| container.id.as_deref());
        let has_id = |named: &String| id.is_some_and(|id| id.starts_with(named));
        let has_pod = |named: &PodName| container.is_some_and(|container| named.names(container));
        (self.ids.is_empty() || self.ids.iter().any(has_id))
            && (self.pods.is_empty() || self.pods.iter().any(has_pod))
    }
}

/// The most containers that are kept after their last process has ended, since records of them may still
/// wait for the output. Each takes some 300 bytes.
pub const ENDED_MAX: usize = 1024;

/// The containers that have a number.
#[derive(Default)]
struct Numbered {
    /// Those of traced processes, and those that have ended.
    known: BTreeMap<u32, Arc<Container>>,
    /// The numbers of those that have ended, in order.
    ended: VecDeque<u32>,
}

/// The containers by their numbers, for the thread that reads records. Neither thread ever waits for what
/// the other one does: each holds the table for one look-up or one change only.
#[derive(Clone, Default)]
pub struct ContainersByNumber(Arc<Mutex<Numbered>>);

impl ContainersByNumber {
    /// Returns the container with a number. `None` when more than `ENDED_MAX` have ended since it has.
    pub fn get(&self, number: u32) -> Option<Arc<Container>> {
        self.lock().known.get(&number).map(Arc::clone)
    }

    /// Locks the table. It is valid after every step, so that a panic elsewhere leaves it usable.
    fn lock(&self) -> MutexGuard<'_, Numbered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of the containers of traced processes.
#[derive(Default)]
pub struct ContainerNumbers {
    live: BTreeMap<u32, Arc<Container>>,
    last: u32,
    numbered: ContainersByNumber,
}

impl ContainerNumbers {
    /// Returns the containers for the thread that reads records.
    pub fn numbered(&self) -> ContainersByNumber {
        self.numbered.clone()
    }

    /// Returns the number of a container; 0 for none. A new number is known to the reader of records
    /// before any process is traced with it.
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
        let known = &mut self.numbered.lock().known;
        known.insert(number, Arc::clone(container));
        number
    }

    /// Forgets the containers of which no traced process is left. The latest of them stay known to the
    /// reader of records.
    pub fn retain(&mut self, traced: &BTreeSet<u32>) {
        let before = self.live.keys().copied();
        let ended: Vec<u32> = before.filter(|number| !traced.contains(number)).collect();
        if ended.is_empty() {
            return;
        }
        self.live.retain(|number, _| traced.contains(number));
        let mut numbered = self.numbered.lock();
        numbered.ended.extend(ended);
        while numbered.ended.len() > ENDED_MAX {
            if let Some(number) = numbered.ended.pop_front() {
                numbered.known.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::ContainerFilter;
    use super::ContainerNumbers;
    use super::ENDED_MAX;
    use crate::host::container::Container;
    use crate::host::container::PodName;

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
            vec![PodName {
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
            }]
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
        let mut numbers = ContainerNumbers::default();
        let one = Arc::new(container());
        let two = Arc::new(Container::default());
        assert_eq!(numbers.number(None), 0);
        assert_eq!(numbers.number(Some(&one)), 1);
        assert_eq!(numbers.number(Some(&two)), 2);
        assert_eq!(numbers.number(Some(&Arc::new(container()))), 1);
        numbers.retain(&BTreeSet::from([0, 2]));
        assert_eq!(numbers.number(Some(&one)), 3);
        let numbered = numbers.numbered();
        for (number, container) in [(1, &one), (2, &two), (3, &one)] {
            assert_eq!(numbered.get(number).as_ref(), Some(container));
        }
        assert_eq!((numbered.get(0), numbered.get(4)), (None, None));
    }

    /// Check that what is kept is bounded when containers start and end and nothing reads the table,
    /// as when the output is blocked, and that the one that goes on is always found.
    #[test]
    fn bounded() {
        let mut numbers = ContainerNumbers::default();
        let numbered = numbers.numbered();
        let busy = numbers.number(Some(&Arc::new(container())));
        let last = u32::try_from(100 * ENDED_MAX).unwrap();
        for n in busy + 1..=last {
            let id = Some(format!("{n:064x}"));
            let short = Container {
                id: id.clone(),
                ..Container::default()
            };
            assert_eq!(numbers.number(Some(&Arc::new(short))), n);
            numbers.retain(&BTreeSet::from([busy]));
            assert_eq!(numbered.get(n).unwrap().id, id);
        }
        assert_eq!(numbered.lock().known.len(), ENDED_MAX + 1);
        assert_eq!(numbered.lock().ended.len(), ENDED_MAX);
        assert_eq!(numbers.live.len(), 1);
        let oldest = last - u32::try_from(ENDED_MAX).unwrap() + 1;
        assert!(numbered.get(oldest).is_some() && numbered.get(oldest - 1).is_none());
        assert_eq!(numbered.get(busy).as_deref(), Some(&container()));
    }
}
