/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The requests in flight of a worker that ends. Since Linux 6.16 its memory is still there when it
 * says so, and they are read as requests that end are. Those that are not found here user space
 * reports by their entries (src/attach/departed.rs).
 */
#ifndef NGX_BPF_ABANDONED_BPF_H
#define NGX_BPF_ABANDONED_BPF_H

#include "request.bpf.h"
#include "walk.bpf.h"

/* Drafts and submits the record of the request in flight on a connection, if there is one. */
__noinline int request_abandon(struct worker *w, struct scratch *s, __u64 address, __u64 now)
{
	struct ngx_connection_s *c = (void *)address;
	struct ngx_http_request_s *r;
	struct connection *conn;

	if (!w || !s)
		return 0;
	conn = connection_find(w, address);
	if (!conn || conn->is_multiplexed || conn->is_over || !is_in_flight(conn))
		return 0;
	r = NGX_GET(c, data);
	if (!is_request(r))
		return 0;
	r = NGX_GET(r, main);
	if (request_valid(s, r) != REQUEST_GOOD || OF_REQUEST(s, connection) != c)
		return 0;
	__sync_fetch_and_add(&counters.seen, 1);
	draft_begin(w, s, now);
	s->held.draft.flags = REQUEST_ABANDONED | REQUEST_CUT;
	/* ngx_http_process_request() sets the first handler. */
	if (!OF_REQUEST(s, write_event_handler))
		s->held.draft.flags |= REQUEST_UNPROCESSED;
	if (!request_report(w, s, r, 0, c, conn))
		request_lost(LOST_BAD_READ);
	subrequests_forget(w, conn);
	connection_forget(w, address);
	return 0;
}

/* The context of a walk through the connections of a worker. */
struct abandonment {
	struct worker *w;
	struct scratch *s;
	__u64 now;
};

/* nginx has its connections in an array: those that were seen are a multiple of a stride apart. */
static __always_inline bool abandon_next(struct abandonment *a, __u32 index)
{
	struct worker *w = a->w;
	__u64 address = w->connections_from + index * w->connections_stride;

	if (address > w->connections_to)
		return false;
	request_abandon(w, a->s, address, a->now);
	return w->connections_stride;
}

DEFINE_WALK(abandon_next, struct abandonment, STEPS_MAX)

/* A process ends, whose memory can be read. */
static __always_inline void requests_abandoned(struct task_struct *task)
{
	struct abandonment a = {.now = bpf_ktime_get_ns()};
	__u32 index;

	a.w = bpf_task_storage_get(&workers, task, NULL, 0);
	if (!a.w || !a.w->connections_from)
		return;
	index = scratch_claim();
	a.s = bpf_map_lookup_elem(&scratches, &index);
	if (!a.s)
		return;
	walk_abandon_next(&a);
	scratch_release(a.s);
}

#endif
