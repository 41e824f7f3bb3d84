// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which build of nginx a binary is: nginx has its release and its signature in every
//! `ngx_module_t`, and compares them when it loads a module.

use std::fmt;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use memchr::memmem;

use crate::elf::Elf;
use crate::version::Version;

pub mod directive;

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

/// What tells builds with different layouts apart, as nginx itself does when it loads a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The release.
    pub version: Version,
    /// `NGX_MODULE_SIGNATURE`.
    pub signature: String,
    /// What it calls itself, when that is not nginx: name and release.
    pub fork: Option<String>,
    /// Whether it exports `ngx_ssl_create_connection()`: with mail or stream over TLS it does even
    /// when the signature says that http has none.
    pub has_ssl: bool,
    /// Whether it exports `ngx_quic_run()`: the signature tells only since 1.25.3.
    pub has_quic: bool,
    /// Whether it exports `ngx_http_upstream_sticky_module`, which the signature does not tell of.
    pub has_sticky: bool,
}

/// What `configure` defines and a signature tells: the name (without `NGX_`), and the digit, counted
/// from 1. Only those that move a member.
pub(crate) const DIGITS: [(&str, usize); 13] = [
    ("FILE_AIO", 3),
    ("QUIC", 18),
    ("THREADS", 22),
    ("PCRE", 23),
    ("SSL", 24),
    ("HTTP_SSL", 24),
    ("HTTP_V2", 25),
    ("HTTP_GZIP", 26),
    ("HTTP_REALIP", 29),
    ("HTTP_HEADERS", 30),
    ("HTTP_DAV", 31),
    ("HTTP_CACHE", 32),
    ("COMPAT", 34),
];

/// Sessions that stay at one upstream (`NGX_HTTP_UPSTREAM_SID`, since 1.29.6): no digit.
pub(crate) const STICKY: &str = "STICKY";

/// What the digits of a signature follow: sizes of a pointer, of `sig_atomic_t` and of `time_t`.
const SIZES: &str = "8,4,8,";

/// The first release whose signature tells of QUIC.
const QUIC_IN_SIGNATURE: (u64, u64, u64) = (1, 25, 3);

impl Build {
    /// Whether a macro of `DIGITS` is defined.
    pub(crate) fn defines(&self, name: &str) -> bool {
        let digit = |name: &str| {
            let (_, digit) = DIGITS.iter().find(|(known, _)| *known == name)?;
            let digits = self.signature.strip_prefix(SIZES)?;
            digits.as_bytes().get(digit - 1).copied()
        };
        let told = digit(name) == Some(b'1');
        match name {
            "SSL" => told || self.has_ssl,
            "QUIC" if self.version < QUIC_IN_SIGNATURE.into() => {
                self.has_quic || digit("COMPAT") == Some(b'1')
            }
            STICKY => self.has_sticky || digit("COMPAT") == Some(b'1'),
            _ => told,
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(fork) = &self.fork {
            write!(f, "{fork}, which is ")?;
        }
        write!(f, "nginx {} (signature {})", self.version, self.signature)
    }
}

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
