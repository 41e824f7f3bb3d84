// SPDX-License-Identifier: MIT OR Apache-2.0
//! The body of a function that is exported and not called. Compilers split `f()` into a head, of which
//! each caller has its copy, and `f.part.0()`, which they all call, as what is left of `f()` does at
//! its end.

use anyhow::Result;

use crate::elf::Elf;
use crate::elf::Function;
use crate::sites::placement;
use crate::sites::references;

/// The body of a function, of which `stub` is what is exported. `None` when that is not what is there.
pub fn find<'data>(
    elf: &Elf<'data>,
    name: &str,
    stub: &Function<'data>,
    arguments: usize,
) -> Result<Option<Function<'data>>> {
    let Some(body) = placement::tail_jump(elf.machine(), stub, arguments)? else {
        return Ok(None);
    };
    let part = format!("{name}.part.");
    let is_other = elf
        .symbols()
        .covering(body)
        .any(|known| !known.starts_with(&part));
    let end = stub.address + stub.code.len() as u64;
    let uses = references::count(elf, &[(body, stub.address..end)]);
    /* Another section has stubs of the PLT, or code that is not expected to run. */
    let is_body =
        !is_other && uses.iter().all(|uses| uses.calls > 0) && elf.are_together(body, stub.address);
    is_body.then(|| elf.function_at(body)).transpose()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::find;
    use crate::built;
    use crate::elf::Elf;
    use crate::elf::image::Image;
    use crate::sites;

    /// Check that a binary which is broken anywhere is an error at the worst.
    #[test]
    fn broken() {
        let source = "
            void ngx_http_init_connection(void *c) { (void)c; }
            static __attribute__((noinline)) void body(void *r) { __asm__(\"push %rax\"); (void)r; }
            void ngx_http_free_request(void *r, long rc) { body(r); (void)rc; }
            void *hooks[] = { ngx_http_init_connection, body };
            int main(void) { body(hooks); return 0; }";
        let (_folder, file) = built::compiled(source, "-O2 -fPIE -pie -rdynamic -s");
        let hooks_of = |bytes: &[u8]| {
            let image = Image::read_up_to(bytes.len() as u64, bytes).unwrap();
            sites::find(&Elf::parse(&image)?)
        };
        let whole = std::fs::read(&file).unwrap();
        let hooks = hooks_of(&whole).unwrap();
        assert!(hooks.places.iter().any(|hook| hook.body.is_some()));
        for at in 0..whole.len() {
            if whole[at] != 0 || at % 16 == 7 {
                let mut bytes = whole.clone();
                bytes[at] = [0, 0x80, 0xff][at % 3];
                let _ = hooks_of(&bytes);
            }
        }
    }

    /// Check that the bodies of functions that link-time optimisation left dead are found, as the
    /// symbols have it, in the stripped file, too; and none where a function is dead altogether.
    #[test]
    #[ignore = "reads a build of nginx that make test-nginx makes"]
    fn bodies() {
        let whole = built::cached("source-lto/objs/nginx");
        let stripped = tempfile::NamedTempFile::new().unwrap();
        let status = Command::new("strip")
            .arg("-o")
            .args([stripped.path(), &whole])
            .status();
        assert!(status.unwrap().success());
        let image = built::image(&whole);
        let symbols = Elf::parse(&image).unwrap();
        for file in [&whole, stripped.path()] {
            let image = built::image(file);
            let elf = Elf::parse(&image).unwrap();
            for name in ["ngx_event_connect_peer", "ngx_ssl_handshake"] {
                let stub = elf.function(name).unwrap();
                let body = find(&elf, name, &stub, 1).unwrap().unwrap();
                let known = symbols.symbol(&format!("{name}.part.0")).unwrap();
                assert_eq!(body.address, known.address, "{name}");
                assert!(body.code.len() as u64 >= known.size, "{name}");
            }
            let name = "ngx_http_post_request";
            let stub = elf.function(name).unwrap();
            assert!(find(&elf, name, &stub, 1).unwrap().is_none());
        }
    }
}
