// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the body of a function that is exported but not called. Compilers split `f()` into a head, which
//! is inlined into each caller, and `f.part.0()`, which all callers call. The exported `f()` ends in a
//! jump to it.

use anyhow::Result;

use crate::elf::Elf;
use crate::elf::Function;
use crate::sites::placement;
use crate::sites::references;

/// Returns the body of the function `name`, whose exported code is `stub`. `None` when the function was not
/// split. `arguments` is the number of arguments that a probe reads, 1 or 2.
///
/// # Errors
///
/// Fails when the code of the stub does not decode, or the body is not in executable code.
pub fn find_body<'data>(
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
    let references = references::count_references(elf, &[(body, stub.address..end)]);
    /* Other sections hold stubs of the PLT, or cold code. */
    let is_body = !is_other
        && references.iter().all(|references| references.calls > 0)
        && elf.are_together(body, stub.address);
    is_body.then(|| elf.function_at(body)).transpose()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::find_body;
    use crate::built;
    use crate::elf::Elf;
    use crate::elf::image::Image;
    use crate::sites::ProbeSites;

    /// Check that a binary with any one byte broken does not cause a panic.
    #[test]
    fn broken() {
        let source = "
            void ngx_http_init_connection(void *c) { (void)c; }
            static __attribute__((noinline)) void body(void *r) { __asm__(\"push %rax\"); (void)r; }
            void ngx_http_free_request(void *r, long rc) { body(r); (void)rc; }
            void *hooks[] = { ngx_http_init_connection, body };
            int main(void) { body(hooks); return 0; }";
        let (_folder, file) = built::compiled(source, "-O2 -fPIE -pie -rdynamic -s");
        let sites_of = |bytes: &[u8]| {
            let image = Image::read_up_to(bytes.len() as u64, bytes).unwrap();
            ProbeSites::locate(&Elf::parse(&image)?)
        };
        let whole = std::fs::read(&file).unwrap();
        let found = sites_of(&whole).unwrap();
        assert!(found.sites.iter().any(|hook| hook.body.is_some()));
        for at in 0..whole.len() {
            if whole[at] != 0 || at % 16 == 7 {
                let mut bytes = whole.clone();
                bytes[at] = [0, 0x80, 0xff][at % 3];
                let _ = sites_of(&bytes);
            }
        }
    }

    /// Check that the bodies of functions that link-time optimisation left unreferenced are found where the
    /// symbols have them, also in the stripped file, and that a function without a body has none.
    #[test]
    #[ignore = "reads a build of nginx that make test-binaries makes"]
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
                let body = find_body(&elf, name, &stub, 1).unwrap().unwrap();
                let known = symbols.symbol(&format!("{name}.part.0")).unwrap();
                assert_eq!(body.address, known.address, "{name}");
                assert!(body.code.len() as u64 >= known.size, "{name}");
            }
            let name = "ngx_http_post_request";
            let stub = elf.function(name).unwrap();
            assert!(find_body(&elf, name, &stub, 1).unwrap().is_none());
        }
    }
}
