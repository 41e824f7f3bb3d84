// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of nginx that are probed, and where in a binary the probes go.

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;

use crate::build;
use crate::elf::Elf;
use crate::elf::symbols;
use crate::elf::symbols::Symbol;
use crate::sites::references::Uses;

pub mod placement;
pub mod references;
pub mod split;

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
    functions.chain([build::HTTP_CORE]).collect()
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
    /// The same registers, for `bpf/arg.bpf.h`.
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
            code = split::find(elf, function, &code, arguments)?.context(
                "no code calls it (link-time optimisation gave each caller a copy), nor a part of \
                 it: run an nginx that was built without -flto",
            )?;
            body = Some(code.address);
        }
        let shadowed = elf.may_have_shadow_stack();
        let site = placement::find(elf.machine(), &code, arguments, shadowed)?;
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

/// All of one binary.
#[derive(Debug)]
pub struct Hooks {
    /// Where probes go.
    pub places: Vec<Hook>,
    /// What these can't tell, and why: nginx has it.
    pub lack: Option<String>,
}

/// The places in one binary. Fails when a function is not there, is not used, or its code can't be
/// decoded.
pub fn find(elf: &Elf<'_>) -> Result<Hooks> {
    let is_there = |probed: &&Probed| match probed.need {
        Need::Always => true,
        Need::Module => elf.symbol(probed.function).is_some(),
        Need::Quic => elf.symbol(QUIC_FRAMES).is_some(),
    };
    let probed: Vec<&Probed> = PROBED.iter().filter(is_there).collect();
    let ranges = probed.iter().map(|probed| {
        let range = elf.symbol(probed.function).map_or(0..0, Symbol::range);
        (range.start, range)
    });
    let uses = references::count(elf, &ranges.collect::<Vec<_>>());
    let (mut places, mut quic) = (Vec::new(), Vec::new());
    for (probed, uses) in probed.into_iter().zip(uses) {
        let hook = Hook::find(elf, probed, uses)
            .with_context(|| format!("failed to find a place for a probe in {}", probed.function));
        match probed.need {
            Need::Quic => quic.push(hook),
            Need::Always | Need::Module => places.push(hook?),
        }
    }
    let quic: Result<Vec<_>> = quic.into_iter().collect();
    let why = match quic {
        Ok(quic) if !quic.is_empty() => {
            places.extend(quic);
            None
        }
        Ok(_) => elf
            .symbol(build::QUIC)
            .map(|_| "nginx shows what it sends since 1.25.4".to_owned()),
        Err(error) => Some(format!("{error:#}")),
    };
    Ok(Hooks {
        places,
        lack: why.map(|why| format!("no times of responses over HTTP/3: {why}")),
    })
}

/// Whether these tell when the response to an HTTP/3 request is sent.
pub fn see_quic(hooks: &[Hook]) -> bool {
    let mut quic = PROBED.iter().filter(|probed| probed.need == Need::Quic);
    quic.all(|probed| hooks.iter().any(|hook| hook.program == probed.program))
}

#[cfg(test)]
mod tests {
    use super::Hooks;
    use super::find;
    use crate::built;
    use crate::elf::Elf;

    /// Those of a program with this source.
    fn hooks(source: &str, flags: &str) -> Hooks {
        let flags = format!("-O2 -fPIE -pie -rdynamic {flags}");
        let (_folder, file) = built::compiled(source, &flags);
        let image = built::image(&file);
        find(&Elf::parse(&image).unwrap()).unwrap()
    }

    /// Check that probes which can't all be placed are left out, and that it is told why: in nginx
    /// before 1.25.4, and where a compiler has made a function dead.
    #[test]
    fn lack() {
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
            (hooks.places.len(), hooks.lack.unwrap_or_default())
        };
        assert_eq!(found("-UQUIC"), (2, String::new()));
        assert_eq!(found("-DQUIC=4"), (4, String::new()));
        for (flag, why) in [
            ("-DQUIC=1", "since 1.25.4"),
            ("-DQUIC=2", "ngx_quic_output: no code calls it"),
            ("-DQUIC=3", "ngx_quic_output: no code calls it"),
        ] {
            let (places, lack) = found(flag);
            assert!(places == 2 && lack.contains(why), "{places}: {lack}");
        }
    }

    /// Check that no probe sits on a call where that could kill: the entry has it instead.
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
            assert_eq!(hooks.places.len(), 2);
            for hook in hooks.places {
                assert_eq!(hook.instruction, instruction);
            }
        }
    }
}
