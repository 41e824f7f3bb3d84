// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of nginx that are probed, and where in a binary the probes go.

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;

use crate::body;
use crate::elf::Elf;
use crate::module;
use crate::site;
use crate::symbols;
use crate::symbols::Symbol;
use crate::uses;
use crate::uses::Uses;

/// A function that is probed.
struct Probed {
    /// Its name.
    function: &'static str,
    /// How many of its arguments are read.
    arguments: usize,
    /// The BPF program that is attached to it (bpf/ngx.bpf.c).
    program: &'static str,
    /// Who needs it.
    need: Need,
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Every request.
    Always,
    /// A module: builds that do not have it have no such function.
    Module,
    /// The responses of HTTP/3: where these probes are not all there, they have no times.
    Quic,
}

/// What stands beside a function of `Need::Quic` since 1.25.4, when frames became what
/// nginx_headers/nginx.h reads.
const QUIC_FRAMES: &str = "ngx_quic_path_limit";

/// All of them.
const PROBED: [Probed; 5] = [
    Probed {
        function: "ngx_http_init_connection",
        arguments: 1,
        program: "init_connection",
        need: Need::Always,
    },
    Probed {
        function: "ngx_http_free_request",
        arguments: 2,
        program: "free_request",
        need: Need::Always,
    },
    Probed {
        function: "ngx_http_v2_send_output_queue",
        arguments: 1,
        program: "send_output_queue",
        need: Need::Module,
    },
    Probed {
        function: "ngx_quic_output",
        arguments: 1,
        program: "quic_output",
        need: Need::Quic,
    },
    Probed {
        function: "ngx_quic_close_connection",
        arguments: 1,
        program: "quic_close",
        need: Need::Quic,
    },
];

/// Everything that every binary must have by name.
pub fn symbols() -> Vec<&'static str> {
    let probed = PROBED.iter().filter(|probed| probed.need == Need::Always);
    let functions = probed.map(|probed| probed.function);
    functions.chain([module::HTTP_CORE]).collect()
}

/// A place in a binary to put a probe.
#[derive(Debug, Serialize)]
pub struct Hook {
    /// The BPF program that is attached there.
    #[serde(skip)]
    pub program: &'static str,
    /// nginx's function.
    pub function: &'static str,
    /// Where its symbol is from.
    pub symbol: symbols::Source,
    /// How often the binary uses it.
    #[serde(flatten)]
    pub uses: Uses,
    /// When nothing does: the address of what its callers use instead, where the probe is then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<u64>,
    /// Bytes from the function's entry, or the body's.
    #[serde(rename = "offset")]
    pub entry_offset: u64,
    /// The instruction's name.
    pub instruction: String,
    /// The registers that the arguments are in then.
    pub arguments: Vec<String>,
    /// Bytes from the beginning of the file.
    #[serde(skip)]
    pub file_offset: u64,
    /// The same registers, for `bpf/arg.h`.
    #[serde(skip)]
    pub cookie: u64,
    /// Whether the kernel emulates the instruction.
    pub emulated: bool,
}

impl Hook {
    /// In the function, or in what is called instead of it.
    fn find(elf: &Elf<'_>, probed: &Probed, uses: Uses) -> Result<Self> {
        let Probed {
            function,
            arguments,
            program,
            ..
        } = *probed;
        let symbol = elf
            .symbol(function)
            .context("there is no symbol of that name")?
            .source;
        let mut code = elf.function(function)?;
        let mut body = None;
        if uses.is_dead() {
            code = body::find(elf, function, &code, arguments)?.context(
                "no code calls it (link-time optimisation gave each caller a copy), nor a part of \
                 it: run an nginx that was built without -flto",
            )?;
            body = Some(code.address);
        }
        let site = site::find(&code, arguments)?;
        Ok(Self {
            program,
            function,
            symbol,
            uses,
            body,
            entry_offset: site.offset,
            arguments: site.register_names(),
            cookie: site.cookie(),
            instruction: site.mnemonic,
            file_offset: code.file_offset + site.offset,
            emulated: site.emulated,
        })
    }
}

/// The places in one binary. Fails when a function is not there, is not used, or its code can't be
/// decoded.
pub fn find(elf: &Elf<'_>) -> Result<Vec<Hook>> {
    let is_there = |probed: &&Probed| match probed.need {
        Need::Always => true,
        Need::Module => elf.symbol(probed.function).is_some(),
        Need::Quic => [probed.function, QUIC_FRAMES]
            .iter()
            .all(|name| elf.symbol(name).is_some()),
    };
    let probed: Vec<&Probed> = PROBED.iter().filter(is_there).collect();
    let ranges = probed.iter().map(|probed| {
        let range = elf.symbol(probed.function).map_or(0..0, Symbol::range);
        (range.start, range)
    });
    let uses = uses::count(elf, &ranges.collect::<Vec<_>>());
    let (mut hooks, mut quic) = (Vec::new(), Vec::new());
    for (probed, uses) in probed.into_iter().zip(uses) {
        let hook = Hook::find(elf, probed, uses);
        if probed.need == Need::Quic {
            quic.push(hook);
            continue;
        }
        hooks.push(hook.with_context(|| {
            format!("failed to find a place for a probe in {}", probed.function)
        })?);
    }
    if let Ok(quic) = quic.into_iter().collect::<Result<Vec<_>>>()
        && see_quic(&quic)
    {
        hooks.extend(quic);
    }
    Ok(hooks)
}

/// Whether these tell when the response to an HTTP/3 request is sent.
pub fn see_quic(hooks: &[Hook]) -> bool {
    let mut quic = PROBED.iter().filter(|probed| probed.need == Need::Quic);
    quic.all(|probed| hooks.iter().any(|hook| hook.program == probed.program))
}
