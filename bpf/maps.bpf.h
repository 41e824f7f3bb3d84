/* SPDX-License-Identifier: GPL-2.0-only */
/* Every map. Nothing is pinned: all of it is freed with the last descriptor. */
#ifndef NGX_BPF_MAPS_BPF_H
#define NGX_BPF_MAPS_BPF_H

#include "state.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct worker);
} workers SEC(".maps");

/* Pids of traced processes that have executed a program: the masters of an upgrade. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, UPGRADES_MAX);
	__type(value, __u32);
} upgrades SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_state);
} sockets SEC(".maps");

/* The same where system calls show the bytes: they know a descriptor, and no socket. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, struct descriptor_key);
	__type(value, struct socket_state);
} descriptors SEC(".maps");

/*
 * One entry for each ngx_connection_t that a live process has used for a client: nginx takes them
 * from an array and uses them again, so that worker_connections bounds this map.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, struct connection_key);
	__type(value, struct connection);
} connections SEC(".maps");

/* Keyed by the subrequest's ngx_http_request_t, which lives as long as the main request's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SUBREQUESTS_IN_FLIGHT_MAX);
	__type(key, struct connection_key);
	__type(value, struct subrequest_times);
} subrequests SEC(".maps");

/* Keyed by the ngx_connection_t of an HTTP/2 connection. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MULTIPLEXES_MAX);
	__type(key, struct connection_key);
	__type(value, struct multiplex);
} multiplexes SEC(".maps");

/* From streams of QUIC to their ngx_connection_t, each of which has one of them at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MULTIPLEXES_MAX);
	__type(key, struct stream_key);
	__type(value, __u64);
} quic_streams SEC(".maps");

/*
 * Requests that nginx has freed before their response was sent, as it does over HTTP/3. The map is
 * small: when a connection ends whose worker has an entry, all of it is walked.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, HELD_MAX);
	__type(key, struct stream_key);
	__type(value, struct held);
} held_requests SEC(".maps");

/* An element is a step of a walk: walk.bpf.h. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, STEPS_MAX);
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/* Set once everything is attached: no request is seen by some of the probes only. */
bool active = false;

struct counters counters = {};

#endif
