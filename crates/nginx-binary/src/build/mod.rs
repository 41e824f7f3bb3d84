// SPDX-License-Identifier: MIT OR Apache-2.0
//! Identifies the build of nginx that a binary is. Every `ngx_module_t` holds the release and a
//! signature of the configuration, which nginx compares when it loads a module.

use std::fmt;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use memchr::memmem;

use crate::elf::Elf;
use crate::version::Version;

pub mod directive;

/// The symbol of the module that every nginx with http has. nginx exports all globals (`-Wl,-E`).
pub const HTTP_CORE: &str = "ngx_http_core_module";

/// A function that only builds with QUIC have.
pub const QUIC: &str = "ngx_quic_run";

/// Offset of `version` in `ngx_module_t`, in every release since 1.9.11.
const VERSION: u64 = 40;

/// Offset of `signature` in `ngx_module_t`.
const SIGNATURE: u64 = 48;

/// Forks that keep nginx's version number but not its structs.
const FORKS: [&str; 4] = ["openresty", "Tengine", "freenginx", "Angie"];

/// The name given to a fork that has nginx's modules but contains neither nginx's name nor a known one.
const UNNAMED_FORK: &str = "unnamed-fork";

/// The most bytes of a signature that are read. Every `NGX_MODULE_SIGNATURE` is shorter.
const SIGNATURE_BYTES_MAX: usize = 64;

/// The properties that distinguish builds with different struct layouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The release that the modules carry: of nginx, of a fork the nginx that it is based on, or of Angie and
    /// freenginx their own.
    pub version: Version,
    /// `NGX_MODULE_SIGNATURE`, which nginx compares when it loads a module. At most 64 bytes of
    /// printable ASCII.
    pub signature: String,
    /// The name and release of a fork, as it identifies itself (`openresty/1.27.1.2`). `None` for nginx
    /// itself.
    pub fork: Option<String>,
    /// True when the binary exports `ngx_ssl_create_connection()`. A build that has TLS only in
    /// mail or stream exports it, too, although its signature says that http has no TLS.
    pub has_ssl: bool,
    /// True when the binary exports `ngx_quic_run()`. The signature shows QUIC only since 1.25.3.
    pub has_quic: bool,
    /// True when the binary exports `ngx_http_upstream_sticky_module`. The signature does not show
    /// it.
    pub has_sticky: bool,
    /// The macros of forks that exported symbols show: those of `FORK_MACROS`.
    pub fork_macros: Vec<&'static str>,
}

/// Macros of `configure` that move a member and are encoded in the signature: the name without `NGX_`,
/// and the number of its digit, counted from 1.
const DIGITS: [(&str, usize); 13] = [
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

/// Session affinity (`NGX_HTTP_UPSTREAM_SID`, since 1.29.6), which has no digit.
const STICKY: &str = "STICKY";

/// Session affinity alone, without `COMPAT`.
const STICKY_MODULE: &str = "STICKY_MODULE";

/// Macros of forks and of well-known patches that move a member, each with the symbol that only builds with it
/// export.
const FORK_MACROS: [(&str, &str); 2] = [
    ("DELAYED_EVENTS", "ngx_posted_delayed_events"),
    ("ANGIE_API", "ngx_api_module"),
];

/// What precedes the rest of a signature of Angie.
const ANGIE_SIGNATURE: &str = "Angie,";

/// The part of a signature before its digits: the sizes of a pointer, of `sig_atomic_t`, of `time_t`.
const SIZES: &str = "8,4,8,";

/// The first release whose signature has a digit for QUIC.
const QUIC_IN_SIGNATURE: (u64, u64, u64) = (1, 25, 3);

impl Build {
    /// Reads which build of nginx a binary is.
    ///
    /// # Errors
    ///
    /// Fails when the binary has no symbols, is not nginx with http, or has no signature.
    pub fn identify(elf: &Elf<'_>) -> Result<Self> {
        if elf.symbols().is_empty() {
            let build = match first_module(elf) {
                Some((version, signature)) => format!("nginx {version} (signature {signature})"),
                None => "its build".to_owned(),
            };
            bail!(
                "it has no symbols (stripped, and a static link exports none), so there is nothing to \
                 find the functions of {build} by"
            );
        }
        let module = elf
            .symbol(HTTP_CORE)
            .with_context(|| format!("not nginx with http: it has no {HTTP_CORE}"))?
            .address;
        let version = Version::from_number(elf.word(module + VERSION)?);
        let signature = signature(elf, elf.pointer(module + SIGNATURE)?)
            .with_context(|| format!("{HTTP_CORE} has no signature"))?;
        Ok(Self {
            fork: fork(elf, version),
            version,
            signature: signature.to_owned(),
            has_ssl: elf.symbol("ngx_ssl_create_connection").is_some(),
            has_quic: elf.symbol(QUIC).is_some(),
            has_sticky: elf.symbol("ngx_http_upstream_sticky_module").is_some(),
            fork_macros: FORK_MACROS
                .iter()
                .filter(|(_, symbol)| elf.symbol(symbol).is_some())
                .map(|(name, _)| *name)
                .collect(),
        })
    }

    /// Returns the build of nginx itself that has this release and these options.
    pub(crate) fn of_nginx(&self, version: Version) -> Self {
        let signature = self.signature.strip_prefix(ANGIE_SIGNATURE);
        Self {
            version,
            signature: signature.unwrap_or(&self.signature).to_owned(),
            fork: None,
            ..self.clone()
        }
    }

    /// Returns the name and the release for people: `nginx 1.22.1`, `Angie/1.12.1`.
    pub fn name(&self) -> String {
        match &self.fork {
            Some(fork) => fork.clone(),
            None => format!("nginx {}", self.version),
        }
    }

    /// Returns whether `defines()` knows a macro.
    pub(crate) fn knows(name: &str) -> bool {
        let is_digit = DIGITS.iter().any(|(known, _)| *known == name);
        let is_of_fork = FORK_MACROS.iter().any(|(known, _)| *known == name);
        is_digit || is_of_fork || [STICKY, STICKY_MODULE].contains(&name)
    }

    /// Returns whether a macro was defined when nginx was built: one that `knows()` knows.
    pub(crate) fn defines(&self, name: &str) -> bool {
        let digit = |name: &str| {
            let (_, digit) = DIGITS.iter().find(|(known, _)| *known == name)?;
            let digits = self.signature.strip_prefix(SIZES)?;
            digits.as_bytes().get(digit - 1).copied()
        };
        let is_set = digit(name) == Some(b'1');
        match name {
            "SSL" => is_set || self.has_ssl,
            "QUIC" if self.version < QUIC_IN_SIGNATURE.into() => {
                self.has_quic || digit("COMPAT") == Some(b'1')
            }
            STICKY => self.has_sticky || digit("COMPAT") == Some(b'1'),
            STICKY_MODULE => self.has_sticky,
            _ if self.fork_macros.contains(&name) => true,
            _ => is_set,
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        /* A fork whose modules carry its own release does not say which nginx it is based on. */
        let own = format!("/{}", self.version);
        if self.fork.as_ref().is_some_and(|fork| !fork.ends_with(&own)) {
            write!(f, ", which is nginx {}", self.version)?;
        }
        write!(f, " (signature {})", self.signature)
    }
}

/// Finds the release and signature of any module without symbols: nothing but `ngx_module_t` points to
/// a text that begins as signatures do.
fn first_module<'data>(elf: &Elf<'data>) -> Option<(Version, &'data str)> {
    elf.pointers().find_map(|(place, text)| {
        let signature = signature(elf, text).ok()?;
        let version = place.checked_sub(SIGNATURE - VERSION)?;
        let version = Version::from_number(elf.word(version).ok()?);
        signature.contains(SIZES).then_some((version, signature))
    })
}

/// Reads the text at an address. Fails when it cannot be a signature.
fn signature<'data>(elf: &Elf<'data>, address: u64) -> Result<&'data str> {
    let bytes = elf.bytes(address, SIGNATURE_BYTES_MAX)?;
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    ensure!(
        !text.is_empty() && text.iter().all(u8::is_ascii_graphic),
        "there is no text at {address:#x}"
    );
    Ok(std::str::from_utf8(text)?)
}

/// Returns the name of a fork: a text that begins with one of `FORKS`, or `UNNAMED_FORK` when nginx's
/// own name is nowhere in the binary.
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
