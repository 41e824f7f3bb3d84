// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds of forks, and of nginx by other compilers and C libraries, whose layouts were measured.

use crate::build::Build;
use crate::layout::BuiltIn;
use crate::layout::Layout;
use crate::layout::tests::build;
use crate::layout::witness::constant::DECIDED_BY_SYMBOL;

/// The layouts, one on each line.
const MEASURED: &str = include_str!("../../../tests/data/forks.tsv");

/// A build whose layout was measured.
pub struct MeasuredBuild {
    /// The name of the line.
    pub name: String,
    /// The build, with the symbols that builds of this fork export.
    pub build: Build,
    /// The nginx that it is based on, with the same options.
    pub nginx: Build,
    /// The offsets that were measured.
    pub layout: Layout,
}

impl MeasuredBuild {
    /// Returns the measured members that a layout has elsewhere or lacks.
    pub fn differing(&self, layout: &Layout) -> Vec<String> {
        let members = self.layout.structs.iter().flat_map(|(name, members)| {
            let members = members.iter();
            members.map(move |(member, offset)| (name, member, offset))
        });
        let differing = members.filter(|(name, member, offset)| {
            layout.offset(name, member) != Some(**offset) && !self.is_unread(name, member)
        });
        let differing = differing.map(|(name, member, offset)| format!("{name}.{member} {offset}"));
        differing.collect()
    }

    /// Returns whether a member is not read in this build, although it has it.
    fn is_unread(&self, name: &str, member: &str) -> bool {
        let nginx = &self.nginx;
        match (name, member) {
            /* The symbol came with 1.25.4. */
            member if member == DECIDED_BY_SYMBOL => nginx.version < (1, 25, 4).into(),
            /* Only QUIC reads it. */
            ("ngx_connection_s", "udp") => {
                nginx.version < (1, 25, 0).into() || !nginx.defines("QUIC")
            }
            _ => false,
        }
    }
}

/// Returns every build.
pub fn builds() -> Vec<MeasuredBuild> {
    let mut lines = MEASURED.lines().filter(|line| !line.starts_with('#'));
    let names: Vec<&str> = lines.next().unwrap().split('\t').skip(3).collect();
    let builds = lines.map(|line| {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, version, signature, offsets @ ..] = &columns[..] else {
            panic!("{line}");
        };
        let layout = layout_of(&names, offsets);
        let connection = &layout.structs["ngx_connection_s"];
        let (fork, fork_macros) = identity(name);
        /* Angie's modules carry its own release. */
        let own = fork.as_ref().and_then(|fork| fork.strip_prefix("Angie/"));
        let build = Build {
            has_ssl: connection.contains_key("ssl"),
            has_quic: connection.contains_key("quic"),
            has_sticky: true,
            fork_macros,
            ..build(own.unwrap_or(version), signature)
        };
        let build = Build { fork, ..build };
        let base = BuiltIn::get().unwrap().forks.base(&build).unwrap().version;
        MeasuredBuild {
            name: (*name).to_owned(),
            nginx: build.of_nginx(base),
            build,
            layout,
        }
    });
    builds.collect()
}

/// Returns what a build calls itself, and the macros that its symbols show.
fn identity(name: &str) -> (Option<String>, Vec<&'static str>) {
    let name = name.strip_prefix("probe-").unwrap_or(name);
    let mut words = name.split('-');
    let (fork, release) = (words.next().unwrap(), words.next().unwrap());
    match (fork, release) {
        ("angie", _) => (Some(format!("Angie/{release}")), vec!["ANGIE_API"]),
        ("freenginx", _) => (Some(format!("freenginx/{release}")), vec![]),
        /* What it calls itself. */
        ("tengine", "3.1.0") => (Some("Tengine/3.0.0".to_owned()), vec![]),
        ("tengine", _) => (Some(format!("Tengine/{release}")), vec![]),
        ("openresty", _) => (Some(format!("openresty/{release}")), vec!["DELAYED_EVENTS"]),
        ("kong", "3.9.3") => (
            Some("openresty/1.25.3.2".to_owned()),
            vec!["DELAYED_EVENTS"],
        ),
        ("kong", "or1.27.1.2") => (
            Some("openresty/1.27.1.2".to_owned()),
            vec!["DELAYED_EVENTS"],
        ),
        ("ingress", _) => (None, vec!["DELAYED_EVENTS"]),
        ("clang" | "gcc" | "musl", _) => (None, vec![]),
        _ => panic!("{name}"),
    }
}

/// Reads a layout from columns: the names `STRUCT.MEMBER`, and their offsets.
fn layout_of(names: &[&str], offsets: &[&str]) -> Layout {
    let mut layout = Layout::default();
    for (name, offset) in names.iter().zip(offsets) {
        let (name, member) = name.split_once('.').unwrap();
        if let Ok(offset) = offset.parse() {
            let members = layout.structs.entry(name.to_owned()).or_default();
            members.insert(member.to_owned(), offset);
        }
    }
    layout
}
