/* SPDX-License-Identifier: GPL-2.0-only */
/* The upstreams' part of a record: attempts, and subrequests with theirs. */
#ifndef NGX_BPF_DRAFT_UPSTREAMS_BPF_H
#define NGX_BPF_DRAFT_UPSTREAMS_BPF_H

#include "upstream.bpf.h"
#include "walk.bpf.h"

/* Members of the state of the attempt that is drafted. */
#define OF_STATE(w, member) NGX_IN((w)->state, (struct ngx_http_upstream_state_t *)NULL, member)

/*
 * Over TLS: the last read was of the response when nginx has had more of it since. Without a byte
 * of it there were session tickets. Where nginx has counted less than there was, or does not
 * count, nothing is known of the end.
 */
static __always_inline void settle_response(struct attempt *out, struct attempt_times *times)
{
	if (!out->bytes_received)
		out->response_first_ns = 0;
	if (out->bytes_received > times->unsure_received)
		out->response_last_ns = times->unsure_ns;
	else if (out->bytes_received < times->unsure_received)
		out->response_last_ns = 0;
}

/* One attempt: the times that its socket told, and the state that nginx keeps. */
static __always_inline void draft_attempt(struct worker *w, struct attempt *out,
					  struct attempt_times *times,
					  struct ngx_http_upstream_state_t *state, __u64 generation)
{
	struct ngx_str_t peer = {};

	if (times && (times->generation != generation || times->index != out->index))
		times = NULL;
	if (times) {
		out->flags = times->flags;
		out->connect_ns = times->connect_ns;
		out->request_first_ns = times->request_first_ns;
		out->request_last_ns = times->request_last_ns;
		out->response_first_ns = times->response_first_ns;
		out->response_last_ns = times->response_last_ns;
		out->handshake_first_ns = times->handshake_first_ns;
		out->handshake_last_ns = times->handshake_last_ns;
	}
	out->bytes_sent = out->bytes_received = -1;
	if (NGX_COPY(w->state, state))
		return;
	out->status = OF_STATE(w, status);
	if (bpf_core_field_exists(state->bytes_sent))
		out->bytes_sent = OF_STATE(w, bytes_sent);
	if (bpf_core_field_exists(state->bytes_received))
		out->bytes_received = OF_STATE(w, bytes_received);
	if (times && out->flags & ATTEMPT_TLS)
		settle_response(out, times);
	if (OF_STATE(w, header_time) != NGX_MSEC_UNSET)
		out->flags |= ATTEMPT_HEADER;
	bpf_probe_read_user(&peer, sizeof(peer), OF_STATE(w, peer));
	out->addr_len = append_text(w, peer.data, peer.len, ADDR_MAX);
	out->addr_cut = peer.len > ADDR_MAX;
}

/*
 * The timers of the last attempt's connection. When a unix socket is closed, or a connection that
 * had been reset, they were not read then, and are read now, if its ngx_connection_t has not
 * become another one's since.
 */
static __always_inline void draft_timers(struct attempt *out, struct attempt_times *times)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)times->connection;

	if (!times->number || !(out->flags & (ATTEMPT_INCOMPLETE | ATTEMPT_TUNNEL)) ||
	    out->flags & ATTEMPT_LOOKED || NGX_GET(c, number) != times->number)
		return;
	upstream_look(times, c, true);
	out->flags |= times->flags;
}

/* How the last attempt has ended, of `u`. */
static __always_inline void draft_outcome(struct attempt *out, struct attempt_times *times,
					  struct ngx_http_upstream_s *u)
{
	__u32 bits;

	if (!u || !times) /* the second never: for the verifier */
		return;
	bits = upstream_bits(u);
	out->flags |= upstream_outcome(u, bits);
	draft_timers(out, times);
	if (!(out->flags & ATTEMPT_HTTP2 && out->flags & ATTEMPT_HEADER &&
	      out->flags & ATTEMPT_INCOMPLETE))
		return;
	if (is_cancelled(u))
		out->flags |= ATTEMPT_CANCELLED;
	else if (bits & U_BUFFERING)
		/* nginx has several buffers: the last frame may be in any of them. */
		out->flags &= ~ATTEMPT_LOOKED;
}

/*
 * Appends the attempts: the first ones, and the last, `max` (a constant) at most. Returns how many;
 * what is known of their times may be NULL. `from` are nginx's own states, which are copied to
 * w->states; `u` is what nginx worked with last.
 */
static __always_inline __u32 draft_attempts(struct worker *w, struct attempt_times *times,
					    __u32 max, struct ngx_array_t *from, __u64 generation,
					    struct ngx_http_upstream_s *u)
{
	struct attempt *out = &w->attempt;
	struct array *states = &w->states;
	__u32 seen;
	__u32 i;

	if (bpf_probe_read_user(states, sizeof(*states), from))
		__builtin_memset(states, 0, sizeof(*states));
	seen = states->nelts;
	for (i = 0; i < max; i++) {
		__u32 at = w->held.tail_len;

		if (i >= seen || at > TAIL_BYTES - sizeof(*out))
			break;
		w->held.tail_len = at + sizeof(*out);
		__builtin_memset(out, 0, sizeof(*out));
		out->index = i == max - 1 ? seen - 1 : i;
		draft_attempt(w, out, times ? &times[i] : NULL,
			      (void *)(states->elts + states->size * out->index), generation);
		if (out->flags & ATTEMPT_SEEN && out->index == seen - 1)
			draft_outcome(out, &times[i], u);
		put(w, at, out, sizeof(*out));
	}
	return i;
}

/*
 * Drafts what nginx and the sockets know of the request's upstreams. Not inlined: what it has on
 * the stack is free again when the subrequests are drafted.
 */
static __noinline void draft_upstreams(struct worker *w, struct connection *conn)
{
	w->held.draft.attempts_len = draft_attempts(
		w, conn ? conn->attempts : NULL, ATTEMPTS_MAX, OF_REQUEST(w, upstream_states),
		conn ? conn->generation : 0, OF_REQUEST(w, upstream));
	w->held.draft.upstreams_seen = w->states.nelts;
}

/* A walk through the subrequests of a request that has ended. */
struct subrequest_walk {
	struct worker *w;
	struct connection *conn;
};

/* Appends one of them. nginx frees none before the main request. */
static __always_inline bool draft_subrequest(struct subrequest_walk *walk, __u32 index)
{
	struct connection *conn = walk->conn;
	struct worker *w = walk->w;
	struct subrequest_times *sub;
	struct ngx_http_request_s *r;
	struct subrequest *out = &w->subrequest;
	__u32 at = w->held.tail_len;
	__u32 err_status;
	__u64 len;

	if (index >= conn->subrequests_seen || at > TAIL_BYTES - sizeof(*out))
		return false;
	r = (void *)conn->subrequests[index & (SUBREQUESTS_MAX - 1)];
	sub = subrequest_find(w, (__u64)r);
	if (sub && is_request(r)) {
		__builtin_memset(out, 0, sizeof(*out));
		err_status = NGX_GET(r, err_status);
		out->status = err_status ? err_status : NGX_GET(r, headers_out.status);
		w->held.tail_len = at + sizeof(*out);
		out->attempts_len = draft_attempts(w, sub->attempts, SUBREQUEST_ATTEMPTS_MAX,
						   NGX_GET(r, upstream_states), conn->generation,
						   NGX_GET(r, upstream));
		out->upstreams_seen = w->states.nelts;
		len = NGX_GET(r, uri.len);
		out->uri_len = append_text(w, NGX_GET(r, uri.data), len, SUBREQUEST_URI_MAX);
		out->uri_cut = len > SUBREQUEST_URI_MAX;
		put(w, at, out, sizeof(*out));
		w->held.draft.subrequests_len++;
	}
	return true;
}

DEFINE_WALK(draft_subrequest, struct subrequest_walk, SUBREQUESTS_MAX)

static __always_inline void draft_subrequests(struct worker *w, struct connection *conn)
{
	struct subrequest_walk walk = {.w = w, .conn = conn};

	w->held.draft.subrequests_seen = conn->subrequests_seen;
	walk_draft_subrequest(&walk);
}

#endif
