/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How the mission's document would have it: a probe at the entry, or at the return, of the function
 * of each phase, each with its time in a map, and a record at the end. To compare with.
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

/* The cookie is the hook's number. One worker serves one request of a connection after the other. */
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

/* At an entry or, as this tool itself never does, at a return: how it is attached decides. */
SEC("uprobe")
int hook(struct pt_regs *ctx)
{
	note(ctx);
	return 0;
}

/* What a probe costs before it does anything. */
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
