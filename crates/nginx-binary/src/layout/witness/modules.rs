// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the witnesses for members that belong to a module.

use super::Agreement;
use super::Witnesses;
use super::functions::CONNECTION;
use super::functions::MemberPath;
use crate::built;
use crate::elf::Elf;
use crate::layout::Layout;
use crate::layout::choose::ChosenLayout;
use crate::layout::choose::LayoutOrigin;
use crate::layout::tests::COMPAT;
use crate::layout::tests::build;
use crate::layout::tests::only;

/// A pointer to what TLS keeps of a connection, which only builds with TLS set.
const SSL: MemberPath = &[(CONNECTION, "ssl")];

/// Compares the layout of 1.25.2 with compat with a program that exports a function.
fn fit(function: &str) -> (Layout, Agreement) {
    let layout = only(&build("1.25.2", COMPAT)).unwrap();
    let source = format!("{function}\nint main(void) {{ return 0; }}");
    let (_folder, file) = built::compiled(&source, "-O1 -fPIE -pie -rdynamic");
    let image = built::image(&file);
    let elf = Elf::parse(&image).unwrap();
    let fit = Witnesses::new(&elf).examine(&layout);
    (layout, fit)
}

/// Check that a build with TLS shows where a connection has it, whether http has TLS or only stream or mail.
#[test]
fn with_tls() {
    let (layout, _) = fit("");
    let offset = layout.structs[CONNECTION]["ssl"];
    let recv = |offset| {
        format!(
            "long ngx_ssl_recv(char *c, char *buf, long size) {{ return **(long **)(c + {offset}); }}"
        )
    };
    let (_, right) = fit(&recv(offset));
    assert_eq!(right.agree, [SSL]);
    let (_, wrong) = fit(&recv(offset + 8));
    assert_eq!(wrong.differ, [SSL]);
}

/// Check that a build without TLS needs no witness for it, and that it is then left out of the layout.
#[test]
fn without_tls() {
    let (layout, fit) = fit("");
    let verdicts = [&fit.agree, &fit.differ, &fit.unknown, &fit.unread];
    let counts = verdicts.map(|places| places.iter().filter(|place| **place == SSL).count());
    assert_eq!(counts, [0, 0, 0, 2]);
    let chosen = ChosenLayout {
        source: LayoutOrigin::Table,
        layout: layout.clone(),
        fit,
    };
    let connection = &chosen.without_unread().layout.structs[CONNECTION];
    assert!(!connection.contains_key("ssl"));
    assert_eq!(connection["log"], layout.structs[CONNECTION]["log"]);
}
