# SPDX-License-Identifier: MIT OR Apache-2.0
# Every command that a person types here; CI types the same.

SHELL := /bin/bash
CARGO ?= cargo
PROGRAM := target/release/ngx-bpf

# What a fresh Debian or Ubuntu lacks: command or file, and its package.
BUILD_NEEDS := clang:clang pkg-config:pkg-config /usr/include/libelf.h:libelf-dev \
	/usr/include/zlib.h:zlib1g-dev objcopy:binutils
TEST_NEEDS := nginx:nginx wrk:wrk h2load:nghttp2-client bpftool:bpftool curl:curl openssl:openssl objdump:binutils \
	xz:xz-utils \
	/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream \
	/usr/lib/nginx/modules/ngx_mail_module.so:libnginx-mod-mail \
	fcgiwrap:fcgiwrap uwsgi:uwsgi-core /usr/lib/uwsgi/plugins/python3_plugin.so:uwsgi-plugin-python3 \
	memcached:memcached /usr/lib/python3/dist-packages/grpc:python3-grpcio
BENCH_NEEDS := bpftrace:bpftrace
CHECK_NEEDS := clang-format:clang-format

# How long the test of the full rate lasts.
export NGX_BPF_TEST_LOAD_SECONDS ?= 60

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

.PHONY: build
build: build-deps ## Build target/release/ngx-bpf
	$(CARGO) build --release --locked

.PHONY: demo
demo: build test-deps ## Trace a small nginx: its records beside its own access log
	tests/demo/run $(PROGRAM)

.PHONY: check
check: build-deps check-deps ## Format, lints, tests without root: before every commit
	$(CARGO) fmt --check
	clang-format --dry-run -Werror bpf/*.c bpf/*.h vmlinux/*.h
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked -- --skip root::

.PHONY: test
test: build-deps test-deps ## All tests; those that trace need root
ifeq ($(shell id -u),0)
	tests/builds/run --fetch trixie
	$(CARGO) test --locked
	tests/builds/run trixie
else
	$(CARGO) test --locked -- --skip root::
	@echo 'SKIP root::: not root'
endif

.PHONY: test-nginx
test-nginx: build-deps test-deps ## The tests that trace, on every nginx of tests/NGINX (needs root)
	tests/builds/run

.PHONY: bench
bench: build-deps test-deps bench-deps ## What tracing costs (needs root)
	tests/builds/run --fetch symbols
	$(CARGO) bench --locked --bench cost

.PHONY: format
format: check-deps ## Format the sources
	$(CARGO) fmt
	clang-format -i bpf/*.c bpf/*.h vmlinux/*.h

.PHONY: deny
deny: ## Check licences and sources of all dependencies (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

.PHONY: hooks
hooks: ## Run make check before every commit
	git config core.hooksPath .githooks

.PHONY: build-deps test-deps bench-deps check-deps
build-deps:
	@tests/install $(BUILD_NEEDS)
test-deps:
	@tests/install $(TEST_NEEDS)
bench-deps:
	@tests/install $(BENCH_NEEDS)
check-deps:
	@tests/install $(CHECK_NEEDS)
