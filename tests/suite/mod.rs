// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suites.

/// The alerts for Prometheus.
mod alerts;
/// What the bench of the cost computes and draws.
mod bench;
/// The page of a waterfall in a browser.
mod browser;
/// The command line, its messages, and the man page.
mod cli;
/// The statements for ClickHouse.
mod clickhouse;
/// What the tests share.
mod common;
/// Summaries, compared with DuckDB.
mod duckdb;
/// HTTP archives, and their schema.
mod har;
/// The files that `make install` installs.
mod installed;
/// The manifest for Kubernetes, compared with the service unit.
mod kubernetes;
/// The order of the modules in src/.
mod layers;
/// Layouts from debug information.
mod layout;
/// Programs that read records: log daemons and others.
mod pipelines;
/// The commands of docs/recipes.md.
mod recipes;
/// Real nginx and real requests, compared with nginx's own access log.
mod root;
/// The schema of the records, compared with their documentation.
mod schema;
/// The sizes of files and functions.
mod sizes;
mod top;
/// Traces for viewers, and the schema of their format.
mod trace_events;
/// What the tables of docs/compatibility.md say of a run.
mod tutorial;
mod verdict;
mod views;
