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

/* Only with --blocked. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct turn);
} turns SEC(".maps");

/* SCRATCH_SPARES entries for any CPU, then one for each CPU: user space sets max_entries. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SCRATCH_SPARES);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* What has become of traced processes, for user space. The oldest event makes room. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, PROCESS_EVENTS_MAX);
	__type(value, struct process_event);
} process_events SEC(".maps");

/*
 * The programs of all layouts for one event of the kernel, by w->layout: the program that is
 * attached to the event calls the one of the process's layout.
 */
#define LAYOUT_PROGRAMS(name)                                                                      \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                             \
		__uint(max_entries, LAYOUTS_MAX);                                                  \
		__type(key, __u32);                                                                \
		__type(value, __u32);                                                              \
	} name SEC(".maps")

LAYOUT_PROGRAMS(sock_send_layouts);
LAYOUT_PROGRAMS(sock_recv_layouts);
LAYOUT_PROGRAMS(inet_sendmsg_layouts);
LAYOUT_PROGRAMS(inet6_sendmsg_layouts);
LAYOUT_PROGRAMS(unix_sendmsg_layouts);
LAYOUT_PROGRAMS(inet_sendpage_layouts);
LAYOUT_PROGRAMS(unix_sendpage_layouts);
LAYOUT_PROGRAMS(inet_recvmsg_layouts);
LAYOUT_PROGRAMS(inet6_recvmsg_layouts);
LAYOUT_PROGRAMS(unix_recvmsg_layouts);
LAYOUT_PROGRAMS(syscall_exit_layouts);
LAYOUT_PROGRAMS(sock_state_layouts);
LAYOUT_PROGRAMS(sock_end_layouts);
LAYOUT_PROGRAMS(process_exit_read_layouts);

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
 * One entry for each connection and stream of a client. A TCP connection's is removed when the
 * kernel destroys its socket. nginx takes each ngx_connection_t from an array and uses it again, so
 * that worker_connections bounds this map in any case.
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

/* The ngx_connection_t of accepted sockets, with --connections. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, struct socket_key);
	__type(value, __u64);
} accepts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/* Set when everything is attached, and cleared before anything is detached. */
bool active = false;

struct counters counters = {};

#endif
