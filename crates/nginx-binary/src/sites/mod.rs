// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of nginx that are probed, and the instructions of a binary that the probes are placed on.

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;

use crate::build;
use crate::code::dataflow;
use crate::elf::Elf;
use crate::elf::symbols;
use crate::elf::symbols::Symbol;
use crate::sites::probed::END_PROGRAM;
use crate::sites::probed::PROBED;
use crate::sites::probed::ProbedFunction;
use crate::sites::probed::Purpose;
use crate::sites::probed::QUIC_FRAMES;
use crate::sites::references::References;
use crate::sites::waits::WakeUp;

pub mod placement;
mod probed;
pub mod references;
mod resolver;
pub mod split;
pub mod waits;

/// Returns the names of the symbols that every nginx with http must have.
pub fn required_symbols() -> Vec<&'static str> {
    let probed = PROBED
        .iter()
        .filter(|probed| probed.purpose == Purpose::Always);
    let functions = probed.map(|probed| probed.function);
    functions.chain([build::HTTP_CORE]).collect()
}

/// One probe: the function, and the instruction that the probe is placed on. The names of the members are
/// keys of `check --json`.
#[derive(Debug, Serialize)]
pub struct ProbeSite {
    /// The BPF program that is attached there.
    #[serde(skip)]
    pub program: &'static str,
    /// The function of nginx.
    pub function: &'static str,
    /// The table that its symbol comes from.
    pub symbol: symbols::SymbolOrigin,
    /// The references to the function in the binary.
    #[serde(flatten)]
    pub references: References,
    /// The address of the function's body, as linked, when the probe is placed there because nothing
    /// references the function itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<u64>,
    /// The distance in bytes from the entry of the function, or of the body.
    #[serde(rename = "offset")]
    pub entry_offset: u64,
    /// The mnemonic of the instruction.
    pub instruction: String,
    /// The names of the registers that hold the arguments there.
    pub arguments: Vec<String>,
    /// The address of the instruction, as linked.
    #[serde(skip)]
    pub address: u64,
    /// The file offset of the instruction in bytes, which a uprobe is attached to.
    #[serde(skip)]
    pub file_offset: u64,
    /// The registers of the arguments by number, one byte for each argument, and in the upper half the
    /// distance of the landmark in bytes (0: it has no symbol), as BPF reads them (`bpf/arg.bpf.h`). Of a wake-up
    /// the second byte is what the request waits for, and the two after it are `WakeUp::context_data`.
    #[serde(skip)]
    pub cookie: u64,
    /// True when the kernel emulates the instruction. Otherwise it single-steps it, which costs ten
    /// times as much.
    pub emulated: bool,
}

impl ProbeSite {
    /// Places a probe in the function, or in its body if nothing references the function.
    fn locate(
        elf: &Elf<'_>,
        probed: &ProbedFunction,
        symbol: &Symbol,
        references: References,
    ) -> Result<Self> {
        let ProbedFunction {
            function,
            arguments,
            program,
            landmark,
            ..
        } = *probed;
        let mut code = elf.function(function)?;
        let mut body = None;
        if references.is_unreferenced() {
            code = split::find_body(elf, function, &code, arguments)?.context(
                "no code calls it (link-time optimisation gave each caller a copy), nor a part of \
                 it: run an nginx that was built without -flto",
            )?;
            body = Some(code.address);
        }
        let shadowed = elf.may_have_shadow_stack();
        let site = placement::place_probe(elf.machine(), &code, arguments, shadowed)?;
        let landmark = landmark.and_then(|name| elf.symbol(name));
        let distance = landmark.map_or(0, |landmark| {
            distance(code.address + site.offset, landmark.address)
        });
        Ok(Self {
            program,
            function,
            symbol: symbol.origin,
            references,
            body,
            entry_offset: site.offset,
            arguments: site.register_names(),
            cookie: site.cookie() | u64::from(distance) << 32,
            instruction: site.mnemonic,
            address: code.address + site.offset,
            file_offset: code.file_offset + site.offset,
            emulated: site.is_emulated,
        })
    }
}

/// The BPF program that is attached to every wake-up.
const WAKE_UP_PROGRAM: &str = "wait_ended";

impl ProbeSite {
    /// Places a probe in a function that ends a wait. It has no other symbol than a name.
    fn of_wake_up(elf: &Elf<'_>, wake_up: WakeUp, references: References) -> Result<Self> {
        /* It ends somewhere before the next symbol. What follows it may be no code. */
        let mut code = elf.function_at(wake_up.address)?;
        let length = dataflow::decodable(elf.machine(), code.address, code.code);
        code.code = &code.code[..length];
        let shadowed = elf.may_have_shadow_stack();
        let site = placement::place_probe(elf.machine(), &code, 1, shadowed)?;
        Ok(Self {
            program: WAKE_UP_PROGRAM,
            function: wake_up.function,
            symbol: symbols::SymbolOrigin::Code,
            references,
            body: None,
            entry_offset: site.offset,
            arguments: site.register_names(),
            cookie: site.cookie()
                | (wake_up.wait as u64) << 8
                | u64::from(wake_up.context_data) << 16,
            instruction: site.mnemonic,
            address: code.address + site.offset,
            file_offset: code.file_offset + site.offset,
            emulated: site.is_emulated,
        })
    }
}

/// The probes of one binary.
#[derive(Debug)]
pub struct ProbeSites {
    /// The probes that can be placed.
    pub sites: Vec<ProbeSite>,
    /// Why the times of HTTP/3 responses cannot be measured although this nginx speaks HTTP/3. `None` when
    /// they can be, or when it does not.
    pub http3_unavailable: Option<String>,
    /// The probe that shows turns of the event loop, or why it has no place.
    pub turn: Result<ProbeSite, String>,
    /// Why it is not measured how long nginx makes requests wait. `None` when it is.
    pub waits_unavailable: Option<String>,
    /// True when modules are built in that are not nginx's own and may make requests wait, too.
    pub has_foreign_modules: bool,
    /// The handlers that refuse requests of `limit_req` and `limit_conn`: how many bytes each is from the probe in
    /// `ngx_http_free_request()`. 0: the build has none, or its code does not show it.
    pub limiters: [i32; waits::LIMITERS.len()],
}

impl ProbeSites {
    /// Finds the probe sites of a binary.
    ///
    /// # Errors
    ///
    /// Fails when a function that every request, or every request of a module that is built in, passes
    /// through is missing or unreferenced, or when its code does not decode.
    pub fn locate(elf: &Elf<'_>) -> Result<Self> {
        let is_expected = |probed: &&ProbedFunction| match probed.purpose {
            Purpose::Always | Purpose::Turn => true,
            Purpose::Module => elf.symbol(probed.function).is_some(),
            Purpose::Quic => elf.symbol(QUIC_FRAMES).is_some(),
        };
        let (mut found, mut sites, mut quic) = (Vec::new(), Vec::new(), Vec::new());
        let mut turn = Err(String::new());
        for probed in PROBED.iter().filter(is_expected) {
            let symbol = elf.symbol(probed.function);
            let symbol = symbol.context("it has no such symbol");
            match symbol.with_context(|| no_place(probed)) {
                Err(error) if probed.purpose == Purpose::Quic => quic.push(Err(error)),
                Err(error) if probed.purpose == Purpose::Turn => turn = Err(format!("{error:#}")),
                symbol => found.push((probed, symbol?)),
            }
        }
        let wake_ups = wake_ups(elf);
        let ranges = found.iter().map(|(_, symbol)| symbol);
        let ranges = ranges.map(|symbol| (symbol.address, symbol.range()));
        let of_wake_ups = wake_ups.iter().flatten().map(|wake_up| wake_up.address);
        let ranges = ranges.chain(of_wake_ups.map(|address| (address, address..address)));
        let references = references::count_references(elf, &ranges.collect::<Vec<_>>());
        let (referenced, of_wake_ups) = references.split_at(found.len());
        let wake_ups = wake_ups.and_then(|wake_ups| place_wake_ups(elf, &wake_ups, of_wake_ups));
        for ((probed, symbol), references) in found.into_iter().zip(referenced.iter().copied()) {
            let site = ProbeSite::locate(elf, probed, symbol, references);
            let site = site.with_context(|| no_place(probed));
            match probed.purpose {
                Purpose::Quic => quic.push(site),
                Purpose::Turn => turn = site.map_err(|error| format!("{error:#}")),
                Purpose::Always | Purpose::Module => sites.push(site?),
            }
        }
        let reason = match quic.into_iter().collect::<Result<Vec<_>>>() {
            Ok(quic) if !quic.is_empty() => {
                sites.extend(quic);
                None
            }
            Ok(_) => elf
                .symbol(build::QUIC)
                .map(|_| "they can be measured since nginx 1.25.4 only".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        let unavailable = |reason| format!("no times of responses over HTTP/3: {reason}");
        let (wake_ups, waits_reason) = match wake_ups {
            Ok(wake_ups) => (wake_ups, None),
            Err(error) => (Vec::new(), Some(format!("no waits of requests: {error:#}"))),
        };
        sites.extend(wake_ups);
        let limiters = limiters(elf, &sites);
        Ok(Self {
            sites,
            http3_unavailable: reason.map(unavailable),
            turn,
            waits_unavailable: waits_reason,
            has_foreign_modules: waits::has_foreign_modules(elf),
            limiters,
        })
    }
}

/// Returns the distance from the probe at the end of a request to the handler of each of `LIMITERS`.
fn limiters(elf: &Elf<'_>, sites: &[ProbeSite]) -> [i32; waits::LIMITERS.len()] {
    let end = sites.iter().find(|site| site.program == END_PROGRAM);
    waits::LIMITERS.map(|module| {
        let places = end.zip(waits::phase_handler(elf, module));
        places.map_or(0, |(end, handler)| {
            distance(end.address, handler).cast_signed()
        })
    })
}

/// Finds the functions in which nginx goes on with a request that it has made wait.
fn wake_ups(elf: &Elf<'_>) -> Result<Vec<WakeUp>> {
    let mut found = waits::find(elf)?;
    found.extend(resolver::timeout_handler(elf));
    Ok(found)
}

/// Places a probe in each wake-up. If one cannot be placed, none is: a wait that is not seen would be taken for a
/// part of the next one.
fn place_wake_ups(
    elf: &Elf<'_>,
    wake_ups: &[WakeUp],
    references: &[References],
) -> Result<Vec<ProbeSite>> {
    let all = wake_ups.iter().zip(references);
    all.map(|(wake_up, references)| {
        let site = ProbeSite::of_wake_up(elf, *wake_up, *references);
        site.with_context(|| format!("failed to find a place for a probe in {}", wake_up.function))
    })
    .collect()
}

/// Returns the distance of an address from another one as the lower 32 bits of a signed number; 0 when it
/// does not fit.
fn distance(from: u64, to: u64) -> u32 {
    let distance = i32::try_from(to.wrapping_sub(from).cast_signed());
    distance.map_or(0, i32::cast_unsigned)
}

/// Returns what failed when a function cannot be probed.
fn no_place(probed: &ProbedFunction) -> String {
    format!("failed to find a place for a probe in {}", probed.function)
}

/// Returns whether these probes measure the times of HTTP/3 responses.
pub fn cover_quic(sites: &[ProbeSite]) -> bool {
    let mut quic = PROBED
        .iter()
        .filter(|probed| probed.purpose == Purpose::Quic);
    quic.all(|probed| sites.iter().any(|site| site.program == probed.program))
}

#[cfg(test)]
mod tests;
