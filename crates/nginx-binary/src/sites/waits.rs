// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions in which nginx goes on with a request that it has made wait. They are static, so that only a
//! build that is not stripped has symbols of them. But nginx calls each through a pointer, and the code that stores
//! the pointer can be found.

use std::collections::BTreeSet;

use anyhow::Context as _;
use anyhow::Result;

use crate::code::callbacks;
use crate::code::dataflow;
use crate::code::dataflow::FunctionEffects;
use crate::elf::Elf;

/// Offsets of `ctx` and `type` in `ngx_module_t` (src/core/ngx_module.h), and the type of modules for http.
const MODULE_CONTEXT: u64 = 56;
const MODULE_TYPE: u64 = 72;
const HTTP_MODULE: u64 = 0x5054_5448;
/// Offset of `postconfiguration` in `ngx_http_module_t` (src/http/ngx_http_config.h).
const POSTCONFIGURATION: u64 = 8;

/// The struct of a request, and offsets of members that have the same one in all releases. `cache` exists where
/// nginx has a cache.
const REQUEST: &str = "ngx_http_request_s";
const CONNECTION: i64 = 8;
const WRITE_EVENT_HANDLER: i64 = 56;
const CACHE: i64 = 64;
/// The least offset of `headers_in`, which `headers_out` follows.
const HEADERS_IN_MIN: i64 = 96;
/// The struct of an event. Its first member is `data`.
pub const EVENT: &str = "ngx_event_s";

/// The most modules of a build that are looked at. nginx's own are fewer than 150.
const MODULES_MAX: u64 = 1024;
/// The most bytes of a module's name.
const NAME_BYTES_MAX: usize = 64;

/// nginx's own modules for http, of all releases, without `ngx_http_` and `_module`; and `header_count` of Debian.
const OWN_MODULES: &str = "\
     access addition_filter auth_basic auth_request autoindex browser charset_filter chunked_filter \
     copy_filter core dav degradation empty_gif fastcgi flv geo geoip grpc gunzip_filter gzip_filter \
     gzip_static header_count header_filter headers_filter image_filter index limit_conn limit_req log \
     map memcached mirror mp4 not_modified_filter perl postpone_filter proxy proxy_v2 random_index \
     range_body_filter range_header_filter realip referer rewrite scgi secure_link slice_filter \
     split_clients ssi_filter ssl static stub_status sub_filter try_files tunnel upstream upstream_hash \
     upstream_ip_hash upstream_keepalive upstream_least_conn upstream_least_time upstream_random \
     upstream_sticky upstream_zone userid_filter uwsgi v2 v2_filter v3 v3_filter write_filter xslt_filter";

/// The reason why a request waits, with its number in `enum wait_kind` of bpf/wire.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// `limit_req` delays the request.
    LimitReq = 0,
    /// `auth_request` asks whether the request is allowed.
    Auth = 1,
    /// Another request fills the entry of the cache (`proxy_cache_lock`).
    CacheLock = 2,
    /// A name server resolves the name of the upstream.
    Resolve = 3,
}

/// A function that nginx calls when a request may have waited long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeUp {
    /// What the request waits for.
    pub wait: Wait,
    /// Its name.
    pub function: &'static str,
    /// Its address, as linked.
    pub address: u64,
    /// Of [`Wait::Resolve`] the offset of `data` in `ngx_resolver_ctx_t`, otherwise 0.
    pub context_data: u16,
}

/// The modules that refuse requests because there are too many of them.
pub const LIMITERS: [&str; 2] = ["ngx_http_limit_req_module", "ngx_http_limit_conn_module"];

/// The function in which nginx goes on with a request that `limit_req` has delayed.
pub const LIMIT_REQ_DELAY: &str = "ngx_http_limit_req_delay";

/// How the address of a wake-up is found.
struct Search {
    wait: Wait,
    function: &'static str,
    /// The symbol that shows that the build can make requests wait for this.
    symbol: &'static str,
    find: fn(&Elf<'_>, u64) -> BTreeSet<u64>,
}

impl Search {
    /// Returns the address that the code shows. `None` when it shows none, or several.
    fn in_code(&self, elf: &Elf<'_>, symbol: u64) -> Option<u64> {
        only((self.find)(elf, symbol).into_iter())
    }
}

const SEARCHES: [Search; 3] = [
    Search {
        wait: Wait::LimitReq,
        function: LIMIT_REQ_DELAY,
        symbol: "ngx_http_limit_req_module",
        find: limit_req_delay,
    },
    Search {
        wait: Wait::Auth,
        function: "ngx_http_auth_request_done",
        symbol: "ngx_http_auth_request_module",
        find: auth_request_done,
    },
    Search {
        wait: Wait::CacheLock,
        function: "ngx_http_file_cache_lock_wait_handler",
        symbol: "ngx_http_file_cache_open",
        find: cache_lock_wait,
    },
];

/// Finds all wake-ups of a binary.
///
/// # Errors
///
/// Fails when one of them is not found although the build has it: a wait that is not seen would be taken for a part
/// of the next one.
pub fn find(elf: &Elf<'_>) -> Result<Vec<WakeUp>> {
    let mut found = Vec::new();
    for search in SEARCHES {
        let Some(symbol) = elf.symbol(search.symbol) else {
            continue;
        };
        let named = elf.symbol(search.function).map(|symbol| symbol.address);
        let address = named.or_else(|| search.in_code(elf, symbol.address));
        let address =
            address.with_context(|| format!("its code does not show {}", search.function))?;
        found.push(WakeUp {
            wait: search.wait,
            function: search.function,
            address,
            context_data: 0,
        });
    }
    Ok(found)
}

/// Returns whether modules are built in that are not nginx's own and may make a request wait in one of its phases.
pub fn has_foreign_modules(elf: &Elf<'_>) -> bool {
    has_only_own_modules(elf) != Some(true)
}

/// Returns whether all modules for http are nginx's own, as far as they configure themselves at the end; each has to
/// that handles a phase. `None` when the list of modules can't be read.
fn has_only_own_modules(elf: &Elf<'_>) -> Option<bool> {
    let [modules, names] = ["ngx_modules", "ngx_module_names"].map(|name| elf.symbol(name));
    let (modules, names) = (modules?.address, names?.address);
    for n in 0..MODULES_MAX {
        let module = elf.pointer(modules.checked_add(n * 8)?).ok()?;
        if module == 0 {
            return Some(n > 0);
        }
        if elf.word(module.checked_add(MODULE_TYPE)?).ok()? != HTTP_MODULE {
            continue;
        }
        let context = elf.pointer(module.checked_add(MODULE_CONTEXT)?).ok()?;
        /* A context without any function is not in the file. */
        let configures = elf.pointer(context.checked_add(POSTCONFIGURATION)?);
        let configures = configures.is_ok_and(|function| function != 0);
        let name = elf.bytes(elf.pointer(names.checked_add(n * 8)?).ok()?, NAME_BYTES_MAX);
        if configures && !is_own(name.ok()?) {
            return Some(false);
        }
    }
    None
}

/// Returns whether a module of this name, which a 0 ends, is nginx's own.
fn is_own(name: &[u8]) -> bool {
    let name = name.split(|byte| *byte == 0).next();
    let name = name.and_then(|name| std::str::from_utf8(name).ok());
    let name = name.and_then(|name| name.strip_prefix("ngx_http_"));
    let name = name.and_then(|name| name.strip_suffix("_module"));
    name.is_some_and(|name| OWN_MODULES.split(' ').any(|own| own == name))
}

/// Returns the function that a module adds to nginx's phases. `None` when the build lacks the module, or when its code
/// does not show one.
pub fn phase_handler(elf: &Elf<'_>, module: &str) -> Option<u64> {
    only(phase_handlers(elf, elf.symbol(module)?.address).into_iter())
}

/// Returns what was found if it is one thing only.
pub fn only<T>(mut found: impl Iterator<Item = T>) -> Option<T> {
    found.next().filter(|_| found.next().is_none())
}

/// Returns the functions that a module adds to nginx's phases, which its `postconfiguration` does.
fn phase_handlers(elf: &Elf<'_>, module: u64) -> BTreeSet<u64> {
    let context = elf.pointer(module.saturating_add(MODULE_CONTEXT));
    let added = context.and_then(|at| elf.pointer(at.saturating_add(POSTCONFIGURATION)));
    added.map_or_else(
        |_| BTreeSet::new(),
        |function| callbacks::named_by(elf, &effects(elf, function, REQUEST)),
    )
}

/// `ngx_http_limit_req_handler()` makes it the request's `write_event_handler`; it sets another one.
fn limit_req_delay(elf: &Elf<'_>, module: u64) -> BTreeSet<u64> {
    let sets_handler = |function: &u64| {
        let touched = effects(elf, *function, REQUEST).touched;
        touched.contains(&(REQUEST, WRITE_EVENT_HANDLER))
    };
    callbacks_of_phases(elf, module)
        .filter(sets_handler)
        .collect()
}

/// `ngx_http_auth_request_handler()` gives it to the subrequest, whose status it reads. What follows that handler in
/// the file may seem to belong to it, since a call that never returns (`__stack_chk_fail()`) is not known as one.
fn auth_request_done(elf: &Elf<'_>, module: u64) -> BTreeSet<u64> {
    let reads_headers = |function: &u64| {
        let touched = effects(elf, *function, REQUEST).touched;
        let mut touched = touched.iter();
        touched.any(|(name, at)| *name == REQUEST && *at >= HEADERS_IN_MIN)
    };
    callbacks_of_phases(elf, module)
        .filter(reads_headers)
        .collect()
}

/// Returns the functions that the phase handlers of a module store somewhere, without those that have symbols.
fn callbacks_of_phases<'e>(elf: &'e Elf<'_>, module: u64) -> impl Iterator<Item = u64> + 'e {
    let exported = elf.symbol("ngx_http_test_reading");
    let exported = exported.map(|symbol| symbol.address);
    let handlers = phase_handlers(elf, module).into_iter();
    let stored = handlers
        .flat_map(|handler| callbacks::named_by(elf, &effects(elf, handler, REQUEST)))
        .collect::<BTreeSet<u64>>();
    stored
        .into_iter()
        .filter(move |address| Some(*address) != exported)
}

/// `ngx_http_file_cache_lock()` stores it; that is a part of `ngx_http_file_cache_open()`, or is called there. It is
/// the only handler of an event that reads `r->cache`.
fn cache_lock_wait(elf: &Elf<'_>, open: u64) -> BTreeSet<u64> {
    let code_from = |address| elf.code_from(address);
    let called = dataflow::calls(elf.machine(), &code_from, open);
    let stored = called.into_iter().chain([open]);
    let stored: BTreeSet<u64> = stored
        .flat_map(|function| callbacks::named_by(elf, &effects(elf, function, REQUEST)))
        .collect();
    let is_wait = |function: &u64| {
        let touched = effects(elf, *function, EVENT).touched;
        [(EVENT, 0), (REQUEST, CONNECTION), (REQUEST, CACHE)]
            .iter()
            .all(|member| touched.contains(member))
    };
    stored.into_iter().filter(is_wait).collect()
}

/// Returns the effects of a function whose first argument points to the struct `argument`, where `ev->data` of an event
/// points to a request.
fn effects(elf: &Elf<'_>, function: u64, argument: &'static str) -> FunctionEffects {
    effects_on(elf, function, argument, REQUEST)
}

/// Does the same where `ev->data` points to the struct `data`.
pub fn effects_on(
    elf: &Elf<'_>,
    function: u64,
    argument: &'static str,
    data: &'static str,
) -> FunctionEffects {
    let code_from = |address| elf.code_from(address);
    let follow = |member| (member == (EVENT, 0)).then_some(data);
    dataflow::analyze(elf.machine(), &code_from, function, argument, &follow)
}

#[cfg(test)]
mod tests {
    use super::LIMITERS;
    use super::SEARCHES;
    use super::find;
    use super::has_foreign_modules;
    use super::phase_handler;
    use crate::built;
    use crate::elf::Elf;
    use crate::pauses::AUTH_REQUEST;

    /// Check that the wake-ups are found where the symbols have them, in builds by several compilers, and that
    /// all their modules are known.
    #[test]
    #[ignore = "reads builds of nginx that make test-binaries makes"]
    fn as_the_symbols_have_it() {
        for (build, image) in built::builds() {
            let elf = Elf::parse(&image).unwrap();
            for search in &SEARCHES {
                let symbol = elf.symbol(search.symbol).unwrap().address;
                let known = elf.symbol(search.function).unwrap().address;
                let found = search.in_code(&elf, symbol);
                assert_eq!(found, Some(known), "{build}: {}", search.function);
            }
            assert!(!has_foreign_modules(&elf), "{build}");
            for module in LIMITERS.into_iter().chain([AUTH_REQUEST]) {
                let handler = module.replace("_module", "_handler");
                let known = elf.symbol(&handler).unwrap().address;
                assert_eq!(
                    phase_handler(&elf, module),
                    Some(known),
                    "{build}: {handler}"
                );
            }
        }
    }

    /// Returns the error of a program that has the symbols of a module, or an empty text.
    fn refusal(source: &str) -> String {
        let (_folder, file) = built::compiled(source, "-O2 -fPIE -pie -rdynamic -s");
        let image = built::image(&file);
        let found = find(&Elf::parse(&image).unwrap());
        found
            .err()
            .map_or_else(String::new, |error| format!("{error}"))
    }

    /// Check that a build without these modules has no wake-up, and that a module whose code shows none, or two,
    /// is an error.
    #[test]
    fn not_found() {
        assert_eq!(refusal("int main(void) { return 0; }"), "");
        let module = |stored: &str| {
            format!(
                "typedef void (*handler)(void **); volatile handler stored[3];
                 __attribute__((noinline)) static void a(void **r) {{ r[7] = r; }}
                 __attribute__((noinline)) static void b(void **r) {{ r[7] = 0; }}
                 static void *all[] = {{ a, b }};
                 static void phase(void **r) {{ (void)r; {stored} }}
                 static long init(void *cf) {{ (void)cf; stored[2] = phase; return 0; }}
                 static void *context[] = {{ 0, init }};
                 void *ngx_http_limit_req_module[25] = {{ 0, 0, 0, 0, 0, 0, 0, context }};
                 int main(void) {{ return all[0] == 0; }}"
            )
        };
        let none = "its code does not show ngx_http_limit_req_delay";
        assert_eq!(refusal(&module("stored[0] = a;")), "");
        assert_eq!(refusal(&module("stored[0] = 0;")), none);
        assert_eq!(refusal(&module("stored[0] = a; stored[1] = b;")), none);
    }

    /// Check that a module is foreign if it is not nginx's own and could handle a phase, and that the modules of a
    /// build without a list of them count as foreign.
    #[test]
    fn foreign_modules() {
        let is_foreign = |name: &str, init: &str| {
            let source = format!(
                "static long init(void *cf) {{ return cf == 0; }}
                 static void *context[] = {{ 0, {init} }};
                 static void *own[] = {{ 0, 0, 0, 0, 0, 0, 0, context, 0, (void *)0x50545448 }};
                 void *ngx_modules[] = {{ own, 0 }};
                 char *{name}[] = {{ \"ngx_http_lua_module\", 0 }};
                 int main(void) {{ return init(0); }}"
            );
            let (_folder, file) = built::compiled(&source, "-O2 -fPIE -pie -rdynamic -s");
            has_foreign_modules(&Elf::parse(&built::image(&file)).unwrap())
        };
        assert!(is_foreign("ngx_module_names", "init"));
        assert!(!is_foreign("ngx_module_names", "0"));
        assert!(is_foreign("other", "0"));
    }
}
