/* SPDX-License-Identifier: GPL-2.0-only */
/* Records go to user space, each once, or are counted as lost; over HTTP/3 they are held before. */
#ifndef NGX_BPF_SUBMIT_BPF_H
#define NGX_BPF_SUBMIT_BPF_H

#include "maps.bpf.h"

enum { RAISE_TRIES = 8 };

/* A helper that came with Linux 5.18. */
enum bpf_func_id___5_18 {
	BPF_FUNC_copy_from_user_task___5_18 = 191,
};

/* Whether atomic operations may return a value: on arm64 only since Linux 5.18. */
static __always_inline bool can_exchange(void)
{
#if defined(__TARGET_ARCH_arm64)
	return bpf_core_enum_value_exists(enum bpf_func_id___5_18,
					  BPF_FUNC_copy_from_user_task___5_18);
#else
	return true;
#endif
}

/*
 * Raises a maximum to `value`. If another CPU has raised it at the same time, it is tried again. On
 * a kernel that cannot exchange values the smaller one of the two may remain.
 */
static __always_inline void raise_max(__u64 *max, __u64 value)
{
	__u64 seen = *max, before;

	for (__u32 i = 0; i < RAISE_TRIES && value > seen; i++) {
		if (!can_exchange()) {
			*max = value;
			return;
		}
		before = __sync_val_compare_and_swap(max, seen, value);
		if (before == seen)
			return;
		seen = before;
	}
}

static __always_inline void request_lost(enum lost_cause cause)
{
	__sync_fetch_and_add(&counters.lost[cause], 1);
}

static __always_inline void request_filtered(void)
{
	__sync_fetch_and_add(&counters.filtered, 1);
}

/* Puts a record into the ring buffer. False: it is full. */
static __always_inline bool ring_output(void *record, __u64 size)
{
	__u64 flags = BPF_RB_NO_WAKEUP, waiting, taken;

	waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	taken = (BPF_RINGBUF_HDR_SZ + size + 7) & ~7ULL;
	if (waiting / WAKEUP_BYTES != (waiting + taken) / WAKEUP_BYTES)
		flags = BPF_RB_FORCE_WAKEUP;
	raise_max(&counters.waiting_max, waiting + taken);
	return !bpf_ringbuf_output(&events, record, size, flags);
}

/* Submits a record that is whole. */
static __always_inline void request_submit(struct held *held)
{
	__u64 size = held->draft.size;

	if (size > sizeof(held->draft) + TAIL_BYTES) /* never: this is for the verifier */
		return request_lost(LOST_BAD_READ);
	if (!ring_output(&held->draft, size))
		request_lost(LOST_RING_FULL);
}

/*
 * Holds the record that is drafted until its response is sent. A client that does not read takes no
 * more than its share of the room.
 */
static __always_inline void response_hold(struct worker *w, struct scratch *s,
					  struct connection *conn, struct connection *parent)
{
	if (parent->held < HELD_OF_CONNECTION_MAX &&
	    !bpf_map_update_elem(&held_requests, &conn->stream, &s->held, BPF_NOEXIST)) {
		parent->held++;
		w->held_len++;
		return;
	}
	/* Too many are held: the end of this response is not going to be seen. */
	s->held.draft.response_last_ns = 0;
	request_submit(&s->held);
}

/* A frame of a response was sent whose record is held. It is submitted if that was the last. */
static __always_inline void held_sent(struct worker *w, struct stream_key *key, bool is_reset,
				      bool is_last, __u64 now)
{
	struct connection_key of_parent = {.pid = w->pid, .connection = key->connection};
	struct held *held = bpf_map_lookup_elem(&held_requests, key);
	struct connection *parent;

	if (!held)
		return;
	if (!is_reset)
		held->draft.response_last_ns = now;
	if (!held->draft.response_first_ns)
		held->draft.response_first_ns = held->draft.response_last_ns;
	if (!is_reset && !is_last)
		return;
	if (is_reset)
		held->draft.flags |= REQUEST_UNSENT;
	request_submit(held);
	bpf_map_delete_elem(&held_requests, key);
	w->held_len--;
	parent = bpf_map_lookup_elem(&connections, &of_parent);
	if (parent && parent->held)
		parent->held--;
}

/* The context of a walk through the held records of a connection, or of a worker (0). */
struct release {
	struct worker *w;
	__u64 connection;
};

/* Submits a held record if it belongs to what ends. */
static long release_if_of(struct bpf_map *map, const struct stream_key *key, struct held *held,
			  struct release *release)
{
	struct worker *w = release->w;

	if (key->pid != w->pid || (release->connection && key->connection != release->connection))
		return 0;
	held->draft.flags |= REQUEST_UNSENT;
	request_submit(held);
	bpf_map_delete_elem(map, key);
	w->held_len--;
	return 0;
}

static __always_inline void held_release(struct worker *w, __u64 c)
{
	struct release release = {.w = w, .connection = c};

	if (w->held_len)
		bpf_for_each_map_elem(&held_requests, release_if_of, &release, 0);
}

#endif
