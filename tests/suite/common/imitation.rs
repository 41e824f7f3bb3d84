// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that `ngx-bpf` takes for an nginx, with debug information. Its structs are those of
//! nginx_headers/nginx.h, and it does nothing. With `-DBODY=…` nothing calls
//! `ngx_http_free_request()`, which only jumps to its body; with `-DCALL=…` `main()` calls the
//! body; with `-DLOG=…` its code has `c->log` at this offset.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use serde_json::Value;

/// The structs, and the symbols by which `ngx-bpf` recognises an nginx.
const STRUCTS: &str = include_str!("../../../nginx_headers/nginx.h");
const SOURCE: &str = r#"
#ifndef VERSION
#define VERSION 1022001
#define NAME "nginx/1.22.1"
#endif
struct { unsigned long before[5], version; const char *signature; } ngx_http_core_module =
    { { 0 }, VERSION, "8,4,8,0011111111010111001111111111111111" };
const char version[] = "\0" NAME;
struct ngx_http_request_s r;
struct ngx_connection_s c;
struct ngx_http_upstream_state_t state;
struct ngx_buf_s b; struct ngx_table_elt_s h; struct ngx_array_t a; struct ngx_log_s l;
struct ngx_http_log_ctx_s x; struct ngx_http_core_loc_conf_s n;
struct ngx_http_upstream_srv_conf_s g;
/* c->log->data, at the offset of the release that the program claims to be, or elsewhere. */
#ifndef LOG
#define LOG 80
#endif
void ngx_http_init_connection(char *c) { *(void **)(*(char **)(c + LOG) + 40) = c; }
#ifdef BODY
__attribute__((noinline)) static void body(void *r, long rc) { BODY; (void)r; (void)rc; }
void ngx_http_free_request(void *r, long rc) { body(r, rc); }
#else
void ngx_http_free_request(void *r, long rc) { (void)r; (void)rc; }
#endif
void *const hooks[] = { ngx_http_init_connection,
#ifndef BODY
    ngx_http_free_request,
#endif
};
int pause(void);
int main(void)
{
#ifdef CALL
    CALL;
#endif
    return pause() + version[0];
}
"#;

/// Compiles the program in a folder.
pub fn compile(folder: &Path, args: &[&str]) -> PathBuf {
    let structs: Vec<&str> = STRUCTS
        .lines()
        .filter(|line| !line.starts_with("#pragma"))
        .collect();
    fs::write(folder.join("nginx.c"), structs.join("\n") + SOURCE).unwrap();
    run(Command::new("clang")
        .args([
            "-rdynamic",
            "-fPIE",
            "-pie",
            "-Wl,--build-id",
            "-o",
            "nginx",
            "nginx.c",
        ])
        .args(args)
        .current_dir(folder));
    folder.join("nginx")
}

/// Calls a function with the pid of a file that runs meanwhile.
pub fn while_running<T>(file: &Path, act: impl FnOnce(u32) -> T) -> T {
    let mut child = Command::new(file).stdin(Stdio::null()).spawn().unwrap();
    let result = act(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    result
}

/// Returns the report of `ngx-bpf check` about a file that runs meanwhile.
pub fn check(file: &Path, args: &[&str]) -> Value {
    while_running(file, |pid| super::tool::check(pid, args))
}

/// Runs objcopy in a folder.
pub fn objcopy(folder: &Path, args: &[&str]) {
    tool(folder, "objcopy", args);
}

/// Runs a tool in a folder.
pub fn tool(folder: &Path, name: &str, args: &[&str]) {
    run(Command::new(name).args(args).current_dir(folder));
}

/// Runs a tool that must succeed.
fn run(command: &mut Command) {
    let output = command
        .output()
        .expect("clang, binutils and xz are installed by make test");
    assert!(output.status.success(), "{output:?}");
}
