// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx_resolver_timeout_handler()`, in which nginx gives up a name that no name server has resolved in time. It is
//! static, as the wake-ups are, but nginx's resolver stores its address where it begins with a name.

use std::collections::BTreeSet;

use crate::code::callbacks;
use crate::code::dataflow;
use crate::code::dataflow::MemberByte;
use crate::elf::Elf;
use crate::sites::waits::EVENT;
use crate::sites::waits::Wait;
use crate::sites::waits::WakeUp;
use crate::sites::waits::effects_on;
use crate::sites::waits::only;

/// The function that begins with a name. It calls `ngx_resolver_set_timeout()` by way of `ngx_resolve_name_locked()`.
const BEGIN: &str = "ngx_resolve_name";
const DEPTH: usize = 2;

/// The struct of a name that is being resolved, which `ev->data` points to, and the offset of `state` in it.
const CONTEXT: &str = "ngx_resolver_ctx_s";
const STATE: i64 = 32;
/// The bytes from its `handler` to its `data`, which follows it.
const DATA_FROM_HANDLER: i64 = 8;

/// Finds it. `None` when the binary's code does not show it, or shows several.
pub fn timeout_handler(elf: &Elf<'_>) -> Option<WakeUp> {
    let code_from = |address| elf.code_from(address);
    let effects = |function| effects_on(elf, function, EVENT, CONTEXT);
    let begin = elf.symbol(BEGIN)?.address;
    let called = |function: &u64| dataflow::calls(elf.machine(), &code_from, *function);
    let mut functions = BTreeSet::from([begin]);
    for _ in 0..DEPTH {
        functions.extend(functions.iter().flat_map(called).collect::<Vec<_>>());
    }
    let stored: BTreeSet<u64> = functions
        .into_iter()
        .flat_map(|function| callbacks::named_by(elf, &effects(function)))
        .collect();
    only(stored.into_iter().filter_map(|address| {
        let context_data = data_of(&effects(address).touched)?;
        Some(WakeUp {
            wait: Wait::Resolve,
            function: "ngx_resolver_timeout_handler",
            address,
            context_data,
        })
    }))
}

/// Returns the offset of `ctx->data` if a function that accesses these members is the one. It sets `ctx->state`, and
/// calls `ctx->handler`, which is further back.
fn data_of(touched: &BTreeSet<MemberByte>) -> Option<u16> {
    let touched: Vec<MemberByte> = touched.iter().copied().collect();
    let [(EVENT, 0), (CONTEXT, STATE), (CONTEXT, handler)] = touched[..] else {
        return None;
    };
    u16::try_from(handler.checked_add(DATA_FROM_HANDLER)?).ok()
}

#[cfg(test)]
mod tests {
    use super::timeout_handler;
    use crate::built;
    use crate::elf::Elf;

    /// Check that the function is found where the symbols have it, and `ctx->data` where nginx's headers do.
    #[test]
    #[ignore = "reads builds of nginx that make test-binaries makes"]
    fn as_the_symbols_have_it() {
        for (build, image) in built::builds() {
            let elf = Elf::parse(&image).unwrap();
            let found = timeout_handler(&elf).unwrap_or_else(|| panic!("{build}: it is not found"));
            let known = elf.symbol(found.function).unwrap().address;
            assert_eq!(known, found.address, "{build}");
            assert_eq!(found.context_data, 184, "{build}");
        }
    }

    /// Check that a function that does more is not taken for it, and that of two of its kind none is.
    #[test]
    fn not_found() {
        let found = |stored: &str| {
            let source = format!(
                "typedef struct context {{ long a[4], state, b[9]; void (*handler)(void *); }} context;
                 typedef void (*callback)(context **); volatile callback stored[2];
                 __attribute__((noinline)) static void a(context **e) {{
                     context *c = *e; c->state = 110; c->handler(c); }}
                 __attribute__((noinline)) static void b(context **e) {{
                     context *c = *e; c->state = 110; c->a[1] = 1; c->handler(c); }}
                 __attribute__((noinline)) static void c(context **e) {{
                     context *c = *e; c->state = 111; c->handler(c); }}
                 void ngx_resolve_name(void *name) {{ (void)name; {stored} }}
                 int main(void) {{ return 0; }}"
            );
            let options = "-O2 -fPIE -pie -rdynamic -s -Wno-unused-function";
            let (_folder, file) = built::compiled(&source, options);
            let image = built::image(&file);
            let elf = Elf::parse(&image).unwrap();
            timeout_handler(&elf).map(|found| found.context_data)
        };
        assert_eq!(found("stored[0] = a;"), Some(120));
        assert_eq!(found("stored[0] = b;"), None);
        assert_eq!(found("stored[0] = a; stored[1] = c;"), None);
    }
}
