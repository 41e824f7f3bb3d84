// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rights of this process: its capabilities, which each thread has for itself, and its user.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use rustix::process::geteuid;
use rustix::thread::CapabilitySet;
use rustix::thread::CapabilitySets;
use rustix::thread::Gid;
use rustix::thread::Uid;
use rustix::thread::capabilities;
use rustix::thread::clear_ambient_capability_set;
use rustix::thread::remove_capability_from_bounding_set;
use rustix::thread::set_capabilities;
use rustix::thread::set_keep_capabilities;
use rustix::thread::set_no_new_privs;
use rustix::thread::set_thread_groups;
use rustix::thread::set_thread_res_gid;
use rustix::thread::set_thread_res_uid;

use crate::host::escape::Quoted;

/// The files in which users and groups are looked up. A static program can't use NSS.
const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Drops all capabilities of this thread but these, from all of its sets, and forbids programs that
/// it would run to give it new ones. The bounding set stays as it is without `CAP_SETPCAP`: it only
/// limits programs that are executed.
///
/// Fails when a sandbox forbids `capset(2)`.
pub fn keep_only(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    let kept = held.permitted & kept;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            /* The kernel knows none from the first error on. */
            if !kept.contains(capability)
                && remove_capability_from_bounding_set(capability).is_err()
            {
                break;
            }
        }
    }
    clear_ambient_capability_set()?;
    hold(kept)
}

/// Makes these the capabilities of this thread, none of which a program that it would run gets.
fn hold(capabilities: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// Drops all capabilities of this thread. A failure is ignored here: the main thread, which keeps
/// some, reports the same one.
pub fn drop_all() {
    let _ = keep_only(CapabilitySet::empty());
}

/// Runs a function in a thread without capabilities, which the threads that it starts do not have
/// either.
pub fn without_capabilities<T: Send>(function: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            drop_all();
            function()
        });
        let result = thread.context("failed to start a thread")?.join();
        Ok(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Returns the capabilities that this thread could use.
pub fn held() -> Result<CapabilitySet> {
    let held = capabilities(None).context("failed to read the capabilities")?;
    Ok(held.permitted)
}

/// A user of the machine.
#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    /// The groups that name the user as a member.
    groups: Vec<u32>,
}

/// Becomes another user, and keeps these capabilities. No other thread may have been started yet.
///
/// Fails when there is no such user, or when this process may not become another one.
pub fn become_user(name: &str, kept: CapabilitySet) -> Result<()> {
    let users = fs::read_to_string(USERS).with_context(|| format!("failed to read {USERS}"))?;
    let groups = fs::read_to_string(GROUPS).with_context(|| format!("failed to read {GROUPS}"))?;
    let user = User::find(name, &users, &groups);
    let user = user.with_context(|| format!("no user {} in {USERS}", Quoted(Path::new(name))))?;
    if user.uid == geteuid().as_raw() {
        return Ok(());
    }
    let held = capabilities(None).context("failed to read the capabilities")?;
    ensure!(
        held.effective
            .contains(CapabilitySet::SETUID | CapabilitySet::SETGID),
        "failed to become user {}: only root can: run as root, or without --user",
        Quoted(Path::new(name))
    );
    user.take_over(held.permitted & kept)
        .with_context(|| format!("failed to become user {}", Quoted(Path::new(name))))
}

impl User {
    /// Finds a user in the text of `/etc/passwd`, and its groups in that of `/etc/group`.
    fn find(name: &str, users: &str, groups: &str) -> Option<Self> {
        let mut users = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>());
        let user = users.find(|fields| fields.len() > 3 && fields[0] == name)?;
        let groups = groups.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let mut members = fields.get(3)?.split(',');
            members.find(|member| *member == name)?;
            id(fields[2])
        });
        Some(Self {
            uid: id(user[2])?,
            gid: id(user[3])?,
            groups: groups.collect(),
        })
    }

    /// Gives the only thread of this process this user, its groups and these capabilities.
    fn take_over(&self, kept: CapabilitySet) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        set_keep_capabilities(true)?;
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_keep_capabilities(false)?;
        hold(kept)
    }
}

/// Parses the number of a user or a group. To the kernel, -1 means no change: the process would stay
/// root.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use rustix::thread::capabilities;

    use super::User;
    use super::become_user;
    use super::without_capabilities;
    use rustix::thread::CapabilitySet;

    /// Check that a user is found with its groups, and that other lines are not taken for it.
    #[test]
    fn users() {
        let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\nbad\nodd:x:a:1::/:\n\
             stay:x:4294967295:1::/:\n";
        let groups = "root:x:0:\nadm:x:4:syslog,web\nwebs:x:5:webs\nother:x:6:web\nbad\n";
        let web = User {
            uid: 33,
            gid: 34,
            groups: vec![4, 6],
        };
        assert_eq!(User::find("web", users, groups), Some(web));
        for unknown in ["we", "", "bad", "odd", "stay", "x"] {
            assert_eq!(User::find(unknown, users, groups), None, "{unknown}");
        }
        let error = become_user("no\x1bone", CapabilitySet::empty()).unwrap_err();
        assert_eq!(error.to_string(), "no user \"no\\x1bone\" in /etc/passwd");
    }

    /// Check that a thread without capabilities, and the threads that it starts, have none, and that
    /// this thread keeps its own.
    #[test]
    fn powerless_thread() {
        let before = capabilities(None).unwrap();
        let inner = || std::thread::spawn(|| capabilities(None).unwrap()).join();
        let inner = without_capabilities(inner).unwrap().unwrap();
        assert!(inner.permitted.is_empty() && inner.effective.is_empty());
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
