// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the BTF that is written for a layout, with layouts that no nginx has.

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::MemberAttr;
use libbpf_rs::btf::types::Struct;
use nginx_binary::layout::Layout;
use nginx_binary::layout::wanted::WantedMembers;

use super::wanted;
use super::with_program;
use crate::attach::btf;
use crate::attach::kernel_types::KernelTypes;
use crate::bpf::types::limit;
use crate::host::descriptors;

/// Returns a layout with every member that is read, eight bytes apart.
fn whole_layout() -> Layout {
    let structs = wanted().unwrap().structs.into_iter();
    let structs = structs.map(|(name, members)| {
        let offsets = (0..).step_by(8);
        (name, members.into_iter().zip(offsets).collect())
    });
    Layout {
        structs: structs.collect(),
    }
}

/// Encodes a layout, and returns the layout that can be read from the result.
fn encoded(layout: &Layout) -> anyhow::Result<Layout> {
    let mut file = btf::file()?;
    with_program(|program| btf::encode(program, Some(layout), &KernelTypes::default(), &mut file))?;
    let btf = Btf::from_path(descriptors::path_of(&file))?;
    let text = |name: Option<&std::ffi::OsStr>| name.unwrap().to_str().unwrap().to_owned();
    let structs = btf.type_by_kind::<Struct<'_>>().map(|ty| {
        let members = ty.iter().map(|member| match member.attr {
            MemberAttr::Normal { offset } => (text(member.name), offset / 8),
            MemberAttr::BitField { .. } => panic!("a bitfield"),
        });
        (text(ty.name()), members.collect())
    });
    Ok(Layout {
        structs: structs.collect(),
    })
}

/// Returns the error for a layout.
fn refused(layout: &Layout) -> String {
    format!("{:#}", encoded(layout).unwrap_err())
}

/// Check that every member has its offset, and that members and structs that a build may lack are left
/// out where the layout does not have them.
#[test]
fn offsets() {
    let mut layout = whole_layout();
    assert!(layout.structs.len() > 10, "{layout:?}");
    assert_eq!(encoded(&layout).unwrap(), layout);
    for (name, members) in &mut layout.structs {
        members.retain(|member, _| !WantedMembers::is_optional(name, member));
    }
    let is_optional = |name: &str| WantedMembers::is_optional_struct(name);
    layout.structs.retain(|name, _| !is_optional(name));
    assert_ne!(layout, whole_layout());
    assert_eq!(encoded(&layout).unwrap(), layout);
}

/// Check layouts that no nginx has: a member or a struct is missing that every build has, or is further
/// away than BPF reads.
#[test]
fn impossible() {
    let change = |change: &dyn Fn(&mut Layout)| {
        let mut layout = whole_layout();
        change(&mut layout);
        refused(&layout)
    };
    let request = "ngx_http_request_s";
    let error = change(&|layout| {
        layout
            .structs
            .get_mut(request)
            .unwrap()
            .remove("connection");
    });
    assert_eq!(error, "the layout has no ngx_http_request_s.connection");
    let error = change(&|layout| drop(layout.structs.remove(request)));
    assert_eq!(error, "the layout has no ngx_http_request_s");
    for offset in [limit::REQUEST_BYTES_MAX.0 - 7, u32::MAX] {
        let error = change(&|layout| {
            let members = layout.structs.get_mut(request).unwrap();
            members.insert("connection".to_owned(), offset);
        });
        assert!(error.contains("no nginx has"), "{error}");
    }
}
