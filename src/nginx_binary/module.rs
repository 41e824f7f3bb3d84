// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which build of nginx a binary is: nginx has its release and its signature in every
//! `ngx_module_t`, and compares them when it loads a module.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use memchr::memmem;

use crate::nginx_binary::elf::Elf;
use crate::nginx_binary::layout::Build;
use crate::nginx_binary::layout::SIZES;
use crate::nginx_binary::version::Version;

/// The module that every nginx with http has; exported, as all globals are (`-Wl,-E`).
pub const HTTP_CORE: &str = "ngx_http_core_module";

/// What only builds with QUIC have.
pub const QUIC: &str = "ngx_quic_run";

/// Where `ngx_module_t` has `version`, in every release since 1.9.11.
const VERSION: u64 = 40;

/// Where it has `signature`.
const SIGNATURE: u64 = 48;

/// Forks that keep nginx's version number and not its structs.
const FORKS: [&str; 4] = ["openresty", "Tengine", "freenginx", "Angie"];

/// What has nginx's modules, and its name nowhere.
const UNNAMED_FORK: &str = "unnamed-fork";

/// Longer than any `NGX_MODULE_SIGNATURE`.
const SIGNATURE_BYTES_MAX: usize = 64;

/// Which nginx this is. Fails when it is none, or has no symbols.
pub fn build(elf: &Elf<'_>) -> Result<Build> {
    if elf.symbols().is_empty() {
        let build = match first(elf) {
            Some((version, signature)) => format!("nginx {version} (signature {signature})"),
            None => "its build".to_owned(),
        };
        bail!(
            "it has no symbols (stripped, and a static link exports none), so there is nothing to \
             find its functions by: pass the debug file of {build} with --debug-info, or run an \
             nginx that is not stripped or not static"
        );
    }
    let module = elf
        .symbol(HTTP_CORE)
        .with_context(|| format!("not nginx with http: it has no {HTTP_CORE}"))?
        .address;
    let version = Version::from_number(elf.word(module + VERSION)?);
    let signature = signature(elf, elf.pointer(module + SIGNATURE)?)
        .with_context(|| format!("{HTTP_CORE} has no signature"))?;
    Ok(Build {
        fork: fork(elf, version),
        version,
        signature: signature.to_owned(),
        has_ssl: elf.symbol("ngx_ssl_create_connection").is_some(),
        has_quic: elf.symbol(QUIC).is_some(),
        has_sticky: elf.symbol("ngx_http_upstream_sticky_module").is_some(),
    })
}

/// Version and signature of the first module: the text that begins as every signature is pointed
/// to by nothing else.
fn first<'data>(elf: &Elf<'data>) -> Option<(Version, &'data str)> {
    elf.pointers().find_map(|(place, text)| {
        let signature = signature(elf, text).ok()?;
        let version = place.checked_sub(SIGNATURE - VERSION)?;
        let version = Version::from_number(elf.word(version).ok()?);
        signature.contains(SIZES).then_some((version, signature))
    })
}

/// The text at an address, if it can be a signature.
fn signature<'data>(elf: &Elf<'data>, address: u64) -> Result<&'data str> {
    let bytes = elf.bytes(address, SIGNATURE_BYTES_MAX)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    ensure!(
        !text.is_empty() && text.iter().all(u8::is_ascii_graphic),
        "no text at {address:#x}"
    );
    Ok(std::str::from_utf8(text)?)
}

/// The name that a fork calls itself by: text that begins with one of `FORKS`, or anything when
/// nginx's own name is nowhere.
fn fork(elf: &Elf<'_>, version: Version) -> Option<String> {
    let own = format!("\0nginx/{version}");
    let mut is_nginx = false;
    for data in elf.segments() {
        for fork in FORKS {
            let name = format!("\0{fork}/");
            if let Some(at) = memmem::find(data, name.as_bytes()) {
                let text = data[at + 1..].iter().take(SIGNATURE_BYTES_MAX);
                let text: Vec<u8> = text.copied().take_while(u8::is_ascii_graphic).collect();
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
        }
        is_nginx |= memmem::find(data, own.as_bytes()).is_some();
    }
    (!is_nginx).then(|| UNNAMED_FORK.to_owned())
}
