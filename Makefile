# SPDX-License-Identifier: MIT OR Apache-2.0
# Every command of the project. CI runs the same targets.

SHELL := /bin/bash
CARGO ?= cargo
PROGRAM := target/release/ngx-bpf

# What a fresh Debian or Ubuntu lacks: a command or a file, and its package.
BUILD_NEEDS := cc:gcc clang:clang pkg-config:pkg-config /usr/include/libelf.h:libelf-dev \
	/usr/include/zlib.h:zlib1g-dev objcopy:binutils
DEMO_NEEDS := nginx:nginx curl:curl
TEST_NEEDS := nginx:nginx wrk:wrk h2load:nghttp2-client nghttp:nghttp2-client bpftool:bpftool curl:curl \
	openssl:openssl objdump:binutils strace:strace xz:xz-utils kill:procps \
	/usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream \
	/usr/lib/nginx/modules/ngx_mail_module.so:libnginx-mod-mail \
	fcgiwrap:fcgiwrap uwsgi:uwsgi-core /usr/lib/uwsgi/plugins/python3_plugin.so:uwsgi-plugin-python3 \
	memcached:memcached /usr/lib/python3/dist-packages/grpc:python3-grpcio \
	rsyslogd:rsyslog prometheus:prometheus jq:jq sqlite3:sqlite3 tmux:tmux gzip:gzip \
	/usr/share/doc/python3-venv:python3-venv
BENCH_NEEDS := bpftrace:bpftrace
GUEST_NEEDS := cpio:cpio
# For tests that read builds of nginx.
READ_NEEDS := llvm-objdump:llvm strip:binutils
CHECK_NEEDS := clang-format:clang-format tmux:tmux jq:jq gzip:gzip

PACKAGE_NEEDS := dpkg-shlibdeps:dpkg-dev ldd:libc-bin readelf:binutils
# crun runs the image; seccomp.json is the profile that it runs it with.
IMAGE_TEST_NEEDS := skopeo:skopeo umoci:umoci crun:crun jq:jq nginx:nginx curl:curl pgrep:procps ip:iproute2 \
	/usr/share/containers/seccomp.json:golang-github-containers-common python3:python3-venv
PACKAGE_TEST_NEEDS := debootstrap:debootstrap lintian:lintian rpm:rpm man:man-db groff:groff zsh:zsh fish:fish \
	systemd-analyze:systemd ip:iproute2 pgrep:procps curl:curl jq:jq
# These come from crates.io and go to ~/.cache/ngx-bpf/cargo.
PACKAGE_TOOLS := cargo-auditable@0.7.7 cargo-deb@3.8.0 cargo-generate-rpm@0.21.1 cargo-about@0.9.3 \
	cargo-cyclonedx@0.5.9

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ngx-bpf
TOOLS := $(CACHE)/cargo/bin
# tests/install puts commands there that it can't install.
export PATH := $(PATH):$(CACHE)/bin

# `make install` installs below PREFIX. DESTDIR is put before every path.
PREFIX ?= /usr/local
# The command that writes the man page and the completions: the program itself, if it runs on this machine.
GENERATE ?= $(PROGRAM)
SYSCONFDIR ?= /etc
DOC = $(DESTDIR)$(PREFIX)/share/doc/ngx-bpf

# Kernels that make test-kernels boots, of those in tests/KERNELS.
KERNELS ?= 5.10 6.1 6.12
# Pairs of containers of `make soak`.
CHURN ?= 100

# Debian suites on which make test-fresh starts with a bare root folder. RESUME=1 goes on where its last run ended.
SUITES ?= bookworm trixie

# The duration of the test at the full rate.
export NGX_BPF_TEST_LOAD_SECONDS ?= 60

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-17s %s\n", $$1, $$2}'

.PHONY: build
build: build-deps ## Build target/release/ngx-bpf
	$(CARGO) build --release --locked

.PHONY: demo
demo: build demo-deps ## Trace a small nginx, and print its records beside its own access log
	tests/demo/run $(PROGRAM)

.PHONY: check
check: build-deps check-deps ## Check format and lints, run the tests without root: before every commit
	$(CARGO) fmt --all --check
	clang-format --dry-run -Werror bpf/*.c bpf/*.h vmlinux/*.h
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --workspace --no-deps --quiet
	$(CARGO) test --locked --workspace -- --skip root::

.PHONY: docs
docs: ## Write what docs/ says of every key (all schemas, two tables), and the expected lines of formats
	UPDATE_DOCS=1 $(CARGO) test --locked --package ngx-bpf-record --test documents --test formats
	UPDATE_DOCS=1 $(CARGO) test --locked --package ngx-bpf-views --test documents

.PHONY: test
# Tests that lack something on this machine are skipped with the reason (77); .ci/run treats that as a failure.
test: build-deps test-deps guest-deps ## Run all tests; those that trace need root
ifeq ($(shell id -u),0)
	tests/builds/run --fetch trixie || [ $$? -eq 77 ]
	$(CARGO) test --locked --workspace
	$(CARGO) test --locked --test integration -- --ignored $$(tests/missing)
	tests/builds/run trixie || [ $$? -eq 77 ]
	tests/kernels/run --some 6.1 || [ $$? -eq 77 ]
else
	$(CARGO) test --locked --workspace -- --skip root::
	$(CARGO) test --locked --test integration -- --ignored --skip root:: $$(tests/missing)
	@echo 'SKIP root::: not root'
endif

.PHONY: test-nginx
test-nginx: build-deps test-deps read-deps ## Run the tests that trace on every nginx of tests/NGINX (needs root)
	tests/builds/run

.PHONY: test-binaries
test-binaries: build-deps read-deps ## Run the tests that only read builds of nginx (needs root)
	tests/builds/run --read

.PHONY: test-kernels
test-kernels: build-deps test-deps guest-deps ## Run the tests that trace on other kernels: KERNELS="5.10 6.1 6.12"
	tests/kernels/run $(KERNELS)

.PHONY: test-fresh
test-fresh: ## Run the README's steps on bare machines: SUITES="bookworm trixie" (needs root)
	tests/fresh/run $(if $(RESUME),--resume) $(SUITES)

.PHONY: soak
soak: build-deps test-deps ## Let containers come and go while one nginx is under load: CHURN=100 pairs (needs root)
	NGX_BPF_TEST_CHURN=$(CHURN) $(CARGO) test --locked --test integration -- --nocapture root::hosts::churn

.PHONY: bench
bench: build-deps test-deps bench-deps ## Measure the overhead of tracing, and write docs/bench.md (needs root)
	tests/builds/run --fetch symbols compat clang || [ $$? -eq 77 ]
	@rm -f target/bench/bench.md
	$(CARGO) bench --locked --bench cost
	# Only a whole run leaves this page.
	[ ! -e target/bench/bench.md ] || cp target/bench/bench.md target/bench/bench.svg docs

.PHONY: bench-quick
bench-quick: build-deps test-deps ## Measure the most important part of it in two minutes (needs root)
	NGX_BPF_BENCH_QUICK=1 $(CARGO) bench --locked --bench cost

.PHONY: bench-views
bench-views: build-deps test-deps ## Measure the commands that show records, on a million of them
	$(CARGO) bench --locked --bench views

.PHONY: bench-scale
bench-scale: build-deps test-deps ## Measure the bytes of a record in each form, on a million of them
	$(CARGO) bench --locked --bench scale

.PHONY: install
install: ## Install the built program: DESTDIR, PREFIX (/usr/local), SYSCONFDIR (/etc)
	install -D $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/ngx-bpf
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d \
		$(DESTDIR)$(PREFIX)/lib/systemd/system $(DOC)/examples $(DOC)/schema $(DOC)/advise
	$(GENERATE) --generate man | gzip -9n >$(DESTDIR)$(PREFIX)/share/man/man8/ngx-bpf.8.gz
	for command in advise check inflight layout summary top waterfall; do \
		$(GENERATE) --generate "man-$$command" | gzip -9n >"$(DESTDIR)$(PREFIX)/share/man/man8/ngx-bpf-$$command.8.gz"; \
	done
	$(GENERATE) --generate bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/ngx-bpf
	$(GENERATE) --generate zsh >$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_ngx-bpf
	$(GENERATE) --generate fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ngx-bpf.fish
	sed 's:/usr/bin/:$(PREFIX)/bin/:' packaging/ngx-bpf.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/ngx-bpf.service
	install -D packaging/ngx-bpf.generator $(DESTDIR)$(PREFIX)/lib/systemd/system-generators/ngx-bpf-generator
	install -D -m 644 packaging/ngx-bpf.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/ngx-bpf.conf
	install -D -m 644 packaging/ngx-bpf.logrotate $(DESTDIR)$(SYSCONFDIR)/logrotate.d/ngx-bpf
	install -D -m 644 packaging/layouts/README $(DESTDIR)$(PREFIX)/share/ngx-bpf/layouts/README
	gzip -9n <CHANGELOG.md >$(DOC)/changelog.gz
	install -m 644 README.md docs/*.md docs/*.svg $(DOC)
	install -m 644 docs/schema/* $(DOC)/schema
	install -m 644 docs/advise/* $(DOC)/advise
	install -m 644 packaging/copyright $(DOC)/copyright
	install -m 644 packaging/examples/* packaging/grafana/* packaging/prometheus/* packaging/kubernetes/* $(DOC)/examples
	cp -r --no-preserve=mode packaging/pipelines $(DOC)/examples
	# The links of the pages must point to the installed files.
	sed -i 's:](docs/:](:g; s:](packaging/grafana/:](examples/:g; s:](packaging/:](examples/:g; s:](LICENSE):](copyright):g' \
		$(DOC)/README.md
	sed -i 's:](../README.md:](README.md:; s:](../packaging/kubernetes/:](examples/:; s:](../packaging/pipelines/:](examples/pipelines/:' $(DOC)/*.md
	sed -i 's:](../../docs/:](../../:g' $(DOC)/examples/pipelines/README.md
	sed -i 's:](\(../packaging/grafana\|../packaging/prometheus\|examples/prometheus\)/:](examples/:g' $(DOC)/*.md

.PHONY: deb
deb: build-deps package-deps ## Build target/dist/*.deb
	packaging/build deb

.PHONY: rpm
rpm: build-deps package-deps ## Build target/dist/*.rpm
	packaging/build rpm

.PHONY: tarball
tarball: build-deps package-deps ## Build target/dist/*.tar.gz with one static binary
	packaging/build tarball

.PHONY: tarball-arm64
tarball-arm64: build-deps package-deps ## Cross-build the same for arm64
	TARGET=aarch64-unknown-linux-gnu packaging/build tarball

.PHONY: image
image: build-deps package-deps ## Build target/dist/ngx-bpf-*-oci: an image for x86-64 and arm64, without a daemon
	packaging/image

.PHONY: packages
packages: build-deps package-deps ## Build the deb, the rpm and the tarball, and their checksums
	packaging/build deb rpm tarball

.PHONY: test-packages
test-packages: packages package-test-deps ## Install, run and purge each package in clean roots (needs root)
	packaging/test

.PHONY: test-image
test-image: image image-test-deps ## Run the image with crun as the DaemonSet does, and check the manifest (needs root)
	packaging/test-image

.PHONY: test-reproducible
test-reproducible: packages ## Build the packages again in another folder, and compare the bytes
	packaging/reproduce

.PHONY: release
release: check test test-binaries test-packages test-image test-reproducible deny ## Run all checks, build all packages: see CONTRIBUTING.md
	@cat target/dist/SHA256SUMS

.PHONY: release-row
release-row: ## Add a release of nginx to layouts.txt, from builds with debug information: NGINX="FILE..."
	$(CARGO) run --locked --quiet --package nginx-binary --example release_row -- $(NGINX)

.PHONY: format
format: check-deps ## Format the sources
	$(CARGO) fmt --all
	clang-format -i bpf/*.c bpf/*.h vmlinux/*.h

.PHONY: deny
deny: ## Check licences and sources of all dependencies
	@packaging/tools cargo-deny@0.20.2
	PATH=$(TOOLS):$$PATH $(CARGO) deny check bans licenses sources

.PHONY: hooks
hooks: ## Let git run make check before every commit
	git config core.hooksPath .githooks

.PHONY: build-deps demo-deps test-deps read-deps bench-deps check-deps package-deps package-test-deps image-test-deps guest-deps
build-deps:
	@tests/install $(BUILD_NEEDS)
demo-deps:
	@tests/install $(DEMO_NEEDS)
test-deps:
	@tests/install $(TEST_NEEDS)
	@tests/fetch
read-deps:
	@tests/install $(READ_NEEDS)
bench-deps:
	@tests/install $(BENCH_NEEDS)
guest-deps:
	@tests/install $(GUEST_NEEDS)
	@tests/kernels/run --fetch 6.1 || [ $$? -eq 77 ]
check-deps:
	@tests/install $(CHECK_NEEDS)
package-deps:
	@tests/install $(PACKAGE_NEEDS)
	@packaging/tools $(PACKAGE_TOOLS)
package-test-deps:
	@tests/install $(PACKAGE_TEST_NEEDS)
image-test-deps:
	@tests/install $(IMAGE_TEST_NEEDS) || true
	@tests/kubernetes
