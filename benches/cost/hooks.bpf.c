/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For comparison: the probes as the project's design card describes them. A probe at the entry, or
 * at the return, of the function of each phase stores its time in a map, and the last one submits a
 * record.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

enum { HOOKS = 10 };

struct times {
	__u64 ns[HOOKS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, __u64);
	__type(value, struct times);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

char LICENSE[] SEC("license") = "GPL";

/* The cookie is the hook's number. A worker serves one request after the other. */
static __always_inline struct times *note(struct pt_regs *ctx)
{
	__u64 key = bpf_get_current_pid_tgid(), n = bpf_get_attach_cookie(ctx);
	struct times *times = bpf_map_lookup_elem(&requests, &key), none = {};

	if (!times) {
		bpf_map_update_elem(&requests, &key, &none, BPF_ANY);
		times = bpf_map_lookup_elem(&requests, &key);
	}
	if (times && n < HOOKS)
		times->ns[n] = bpf_ktime_get_ns();
	return times;
}

/* Runs at an entry, or at a return (which ngx-bpf never uses), depending on how it is attached. */
SEC("uprobe")
int hook(struct pt_regs *ctx)
{
	note(ctx);
	return 0;
}

/* Measures the cost of a probe that does nothing. */
SEC("uprobe")
int nothing(struct pt_regs *ctx)
{
	return 0;
}

SEC("uprobe")
int end(struct pt_regs *ctx)
{
	__u64 key = bpf_get_current_pid_tgid();
	struct times *times = note(ctx);

	if (times) {
		bpf_ringbuf_output(&events, times, sizeof(*times), 0);
		bpf_map_delete_elem(&requests, &key);
	}
	return 0;
}
