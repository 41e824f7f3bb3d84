// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of nginx that are probed, and the instructions of a binary that the probes are placed on.

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;

use crate::build;
use crate::elf::Elf;
use crate::elf::symbols;
use crate::elf::symbols::Symbol;
use crate::sites::probed::PROBED;
use crate::sites::probed::ProbedFunction;
use crate::sites::probed::Purpose;
use crate::sites::probed::QUIC_FRAMES;
use crate::sites::references::References;

pub mod placement;
mod probed;
pub mod references;
pub mod split;

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
    /// The file offset of the instruction in bytes, which a uprobe is attached to.
    #[serde(skip)]
    pub file_offset: u64,
    /// The registers of the arguments by number, one byte for each argument, and in the upper half the
    /// distance of the landmark in bytes (0: it has no symbol), as BPF reads them (`bpf/arg.bpf.h`).
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
        let ranges = found.iter().map(|(_, symbol)| symbol);
        let ranges = ranges.map(|symbol| (symbol.address, symbol.range()));
        let references = references::count_references(elf, &ranges.collect::<Vec<_>>());
        for ((probed, symbol), references) in found.into_iter().zip(references) {
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
        Ok(Self {
            sites,
            http3_unavailable: reason.map(unavailable),
            turn,
        })
    }
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
mod tests {
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
}
