// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests of the places of probes.

use super::ProbeSites;
use crate::built;
use crate::elf::Elf;

/// Locates the probes of a program with this source.
fn hooks(source: &str, flags: &str) -> ProbeSites {
    try_hooks(source, flags).unwrap()
}

fn try_hooks(source: &str, flags: &str) -> anyhow::Result<ProbeSites> {
    let flags = format!("-O2 -fPIE -pie -rdynamic {flags}");
    let (_folder, file) = built::compiled(source, &flags);
    let image = built::image(&file);
    ProbeSites::locate(&Elf::parse(&image).unwrap())
}

/// Check that the probes of HTTP/3 are left out with a reason unless all can be placed: in nginx before
/// 1.25.4, and where a function is unreferenced.
#[test]
fn http3_unavailable() {
    let source = "
        #define F(name) __attribute__((noinline)) void name(void *p) { __asm__(\"push %rax\"); (void)p; }
        F(ngx_http_init_connection) F(ngx_http_free_request)
        #ifdef QUIC
        F(ngx_quic_run) F(ngx_quic_output) F(ngx_quic_close_connection)
        #endif
        #if QUIC > 1
        F(ngx_quic_path_limit)
        #endif
        void *hooks[] = { ngx_http_init_connection, ngx_http_free_request,
        #if QUIC > 2
            ngx_quic_close_connection,
        #endif
        #if QUIC > 3
            ngx_quic_output,
        #endif
        };
        int main(void) { return hooks[0] == 0; }";
    let found = |flag: &str| {
        let hooks = hooks(source, &format!("-s {flag}"));
        (
            hooks.sites.len(),
            hooks.http3_unavailable.unwrap_or_default(),
        )
    };
    assert_eq!(found("-UQUIC"), (2, String::new()));
    assert_eq!(found("-DQUIC=4"), (4, String::new()));
    for (flag, why) in [
        ("-DQUIC=1", "since nginx 1.25.4"),
        ("-DQUIC=2", "ngx_quic_output: no code calls it"),
        ("-DQUIC=3", "ngx_quic_output: no code calls it"),
    ] {
        let (sites, http3_unavailable) = found(flag);
        assert!(
            sites == 2 && http3_unavailable.contains(why),
            "{sites}: {http3_unavailable}"
        );
    }
}

/// Check that a function without a symbol is an error, or the reason why the times of HTTP/3 are absent.
#[test]
fn missing() {
    let source = "
        #define F(name) __attribute__((noinline)) void name(void *p) { __asm__(\"nop\"); (void)p; }
        F(ngx_http_init_connection) F(ngx_quic_path_limit) F(ngx_quic_output)
        #ifdef WHOLE
        F(ngx_http_free_request)
        #else
        #define ngx_http_free_request ngx_http_init_connection
        #endif
        void *hooks[] = { ngx_http_init_connection, ngx_http_free_request, ngx_quic_output };
        int main(void) { return hooks[0] == 0; }";
    let error = try_hooks(source, "-s").unwrap_err();
    let expected =
        "failed to find a place for a probe in ngx_http_free_request: it has no such symbol";
    assert_eq!(format!("{error:#}"), expected);
    let whole = hooks(source, "-s -DWHOLE");
    assert_eq!(whole.sites.len(), 2);
    let expected = "no times of responses over HTTP/3: failed to find a place for a probe in \
                    ngx_quic_close_connection: it has no such symbol";
    assert_eq!(whole.http3_unavailable.as_deref(), Some(expected));
}

/// Check that the distance of the landmark leads from the probe to it, and is 0 without its symbol.
#[test]
fn landmark() {
    let source = "
        #define F(name) __attribute__((noinline)) void name(void *p) { __asm__(\"nop\"); (void)p; }
        F(ngx_http_init_connection) F(LANDMARK) F(ngx_http_free_request)
        void *hooks[] = { ngx_http_init_connection, ngx_http_free_request };
        int main(void) { return hooks[0] == 0; }";
    for (name, is_there) in [("ngx_http_request_empty_handler", true), ("other", false)] {
        let flags = format!("-O2 -fPIE -pie -rdynamic -DLANDMARK={name}");
        let (_folder, file) = built::compiled(source, &flags);
        let image = built::image(&file);
        let elf = Elf::parse(&image).unwrap();
        let sites = ProbeSites::locate(&elf).unwrap().sites;
        let address = |name: &str| elf.symbol(name).unwrap().address;
        for site in sites {
            let distance = (site.cookie >> 32) as u32;
            let has_landmark = is_there && site.program == "free_request";
            assert_eq!(distance != 0, has_landmark, "{}", site.function);
            if has_landmark {
                let probed = address(site.function) + site.entry_offset;
                let found = probed.wrapping_add_signed(distance.cast_signed().into());
                assert_eq!(found, address(name));
            }
        }
    }
}

/// Check that no probe is placed on a call when the process may have a shadow stack.
#[test]
fn shadow_stack() {
    let source = "
        #define F(name) __asm__(\".globl \" #name \"\\n.type \" #name \", @function\\n\" #name \": \" \\
            \"sub $8, %rsp\\ncall main\\nadd $8, %rsp\\nret\\n.size \" #name \", . - \" #name); void name(void);
        F(ngx_http_init_connection) F(ngx_http_free_request)
        void *hooks[] = { ngx_http_init_connection, ngx_http_free_request };
        int main(void) { return hooks[0] == 0; }";
    for (flag, instruction) in [("-fPIE", "call"), ("-Wl,-z,shstk", "sub")] {
        let hooks = hooks(source, flag);
        assert_eq!(hooks.sites.len(), 2);
        for hook in hooks.sites {
            assert_eq!(hook.instruction, instruction);
        }
    }
}
