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
    /// Whether only builds with a certain module have it: those without never need it.
    optional: bool,
}

/// All of them.
const PROBED: [Probed; 3] = [
    Probed {
        function: "ngx_http_init_connection",
        arguments: 1,
        program: "init_connection",
        optional: false,
    },
    Probed {
        function: "ngx_http_free_request",
        arguments: 2,
        program: "free_request",
        optional: false,
    },
    Probed {
        function: "ngx_http_v2_send_output_queue",
        arguments: 1,
        program: "send_output_queue",
        optional: true,
    },
];

/// Everything that every binary must have by name.
pub fn symbols() -> Vec<&'static str> {
    let probed = PROBED.iter().filter(|probed| !probed.optional);
    let functions = probed.map(|probed| probed.function);
    functions.chain([module::HTTP_CORE]).collect()
}

/// A place in a binary to put a probe.
#[derive(Clone, Debug, Serialize)]
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
    let is_there = |probed: &&Probed| !probed.optional || elf.symbol(probed.function).is_some();
    let probed: Vec<&Probed> = PROBED.iter().filter(is_there).collect();
    let ranges = probed.iter().map(|probed| {
        let range = elf.symbol(probed.function).map_or(0..0, Symbol::range);
        (range.start, range)
    });
    let uses = uses::count(elf, &ranges.collect::<Vec<_>>());
    let hooks = probed.into_iter().zip(uses).map(|(probed, uses)| {
        Hook::find(elf, probed, uses)
            .with_context(|| format!("failed to find a place for a probe in {}", probed.function))
    });
    hooks.collect()
}
