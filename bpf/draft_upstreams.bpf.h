/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The upstreams of a record: attempts, and subrequests with their attempts.
 *
 * Functions that draft parts of a record are global (not static): the verifier follows such a
 * function once, for any arguments, and not again for each way that leads to a call of it.
 */
#ifndef NGX_BPF_DRAFT_UPSTREAMS_BPF_H
#define NGX_BPF_DRAFT_UPSTREAMS_BPF_H

#include "spill.bpf.h"
#include "upstream.bpf.h"

/* Members of the copied ngx_http_upstream_state_t. */
#define OF_STATE(s, member) NGX_IN((s)->state, (struct ngx_http_upstream_state_t *)NULL, member)

/*
 * Over TLS: if nginx counted no byte of the response, the reads were session tickets, and there is
 * no first byte. If it has counted more bytes since the last read, that read was the response's
 * last. If it has counted fewer bytes than before, or does not count, the last byte is not known.
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

/* What the socket of the attempt has shown. */
static __always_inline void draft_times(struct attempt *out, struct attempt_times *times)
{
	out->flags = times->flags;
	out->connect_ns = times->connect_ns;
	out->request_first_ns = times->request_first_ns;
	out->request_last_ns = times->request_last_ns;
	out->response_first_ns = times->response_first_ns;
	out->response_last_ns = times->response_last_ns;
	out->handshake_first_ns = times->handshake_first_ns;
	out->handshake_last_ns = times->handshake_last_ns;
	out->header_ns = times->header_ns;
	out->kept_ns = times->kept_ns;
	out->requests = times->requests;
	out->stall_ns = times->stall_ns;
	out->read_wait_ns = times->read_wait_ns;
}

/* What nginx keeps of the attempt in r->upstream_states. */
static __always_inline void draft_state(struct scratch *s, struct attempt *out,
					struct attempt_times *times,
					struct ngx_http_upstream_state_t *state)
{
	struct ngx_str_t peer = {};

	out->bytes_sent = out->bytes_received = -1;
	if (NGX_COPY(s->state, state))
		return;
	out->status = OF_STATE(s, status);
	if (bpf_core_field_exists(state->bytes_sent))
		out->bytes_sent = OF_STATE(s, bytes_sent);
	/* nginx sets it when the attempt ends. */
	if (s->held.draft.flags & REQUEST_ABANDONED && !out->bytes_sent)
		out->bytes_sent = -1;
	if (bpf_core_field_exists(state->bytes_received))
		out->bytes_received = OF_STATE(s, bytes_received);
	if (times && out->flags & ATTEMPT_TLS)
		settle_response(out, times);
	if (OF_STATE(s, header_time) != NGX_MSEC_UNSET)
		out->flags |= ATTEMPT_HEADER;
	bpf_probe_read_user(&peer, sizeof(peer), OF_STATE(s, peer));
	out->addr_len = append_text(s, peer.data, peer.len, ADDR_MAX);
	out->addr_cut = peer.len > ADDR_MAX;
}

/*
 * The timers of the last attempt's connection. They are not read when a unix socket is closed, or a
 * connection that was reset. So they are read now, if no other connection uses the ngx_connection_t
 * by now.
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

/* How the last attempt has ended: `u` is about this one, and s->upstream is its copy. */
static __always_inline void draft_outcome(struct scratch *s, struct attempt *out,
					  struct attempt_times *times,
					  struct ngx_http_upstream_s *u)
{
	__u32 bits;

	if (!u)
		return;
	bits = upstream_bits_in(OF_UPSTREAM(s, store));
	out->flags |= upstream_outcome(s, bits);
	draft_timers(out, times);
	if (!(out->flags & ATTEMPT_HTTP2 && out->flags & ATTEMPT_HEADER &&
	      out->flags & ATTEMPT_INCOMPLETE))
		return;
	if (is_cancelled(u))
		out->flags |= ATTEMPT_CANCELLED;
	else if (bits & U_BUFFERING)
		/* nginx has several buffers, and the last frame may be in any of them. */
		out->flags &= ~ATTEMPT_LOOKED;
}

/*
 * Appends the attempt with this index in r->upstream_states, of which s->states is a copy. `times`
 * may be NULL, or those of another attempt: then nothing is known of its socket. `u` is
 * r->upstream, which is about the last attempt, and of which s->upstream is a copy. Returns 0 when
 * the tail has no room.
 */
__noinline int draft_attempt(struct scratch *s, struct attempt_times *times, __u64 generation,
			     __u32 index, __u64 u)
{
	struct attempt *out;
	__u32 at;

	if (!s)
		return 0;
	out = &s->attempt;
	at = s->held.tail_len;
	if (at > TAIL_BYTES - sizeof(*out))
		return 0;
	s->held.tail_len = at + sizeof(*out);
	__builtin_memset(out, 0, sizeof(*out));
	out->index = index;
	if (times && (times->generation != generation || times->index != index))
		times = NULL;
	if (times)
		draft_times(out, times);
	draft_state(s, out, times, (void *)(s->states.elts + s->states.size * index));
	if (times && out->flags & ATTEMPT_SEEN && index == (__u32)s->states.nelts - 1)
		draft_outcome(s, out, times, (void *)u);
	put(s, at, out, sizeof(*out));
	return 1;
}

/*
 * Appends at most `max` (a constant) attempts: the first ones, and the last. Returns how many.
 * `times` may be NULL.
 */
static __always_inline __u32 draft_attempts(struct scratch *s, struct attempt_times *times,
					    __u32 max, __u64 generation, struct ngx_array_t *states,
					    struct ngx_http_upstream_s *u)
{
	__u32 seen, i;

	if (bpf_probe_read_user(&s->states, sizeof(s->states), states))
		__builtin_memset(&s->states, 0, sizeof(s->states));
	seen = s->states.nelts;
	for (i = 0; i < max && i < seen; i++) {
		if (!draft_attempt(s, times ? &times[i] : NULL, generation,
				   i == max - 1 ? seen - 1 : i, (__u64)u))
			break;
	}
	return i;
}

/* The last attempt was drafted last, and s->state is the copy of its state. */
static __always_inline void draft_spill(struct scratch *s)
{
	struct ngx_http_upstream_state_t *state = NULL;

	if (!bpf_core_field_exists(state->bytes_received) ||
	    OF_STATE(s, bytes_received) >= SPILL_BYTES_MIN)
		s->held.draft.response_spilt = spilt_response(s);
}

/* Appends the request's own attempts. `conn` is NULL if nothing is known of their sockets. */
__noinline int draft_upstreams(struct scratch *s, struct connection *conn)
{
	if (!s)
		return 0;
	s->held.draft.attempts_len = draft_attempts(
		s, conn ? conn->attempts : NULL, ATTEMPTS_MAX, conn ? conn->generation : 0,
		OF_REQUEST(s, upstream_states), OF_REQUEST(s, upstream));
	s->held.draft.upstreams_seen = s->states.nelts;
	if (s->held.draft.attempts_len)
		draft_spill(s);
	return 0;
}

/* Appends a subrequest with its attempts: nginx frees it with the main request. */
__noinline int draft_subrequest(struct worker *w, struct scratch *s, __u64 request,
				__u64 generation)
{
	struct ngx_http_request_s *r = (void *)request;
	struct subrequest_times *sub;
	struct ngx_http_upstream_s *u;
	struct subrequest *out;
	__u32 at, err_status;
	__u64 len;

	if (!w || !s)
		return 0;
	out = &s->subrequest;
	at = s->held.tail_len;
	sub = subrequest_find(w, request);
	if (!sub || at > TAIL_BYTES - SUBREQUEST_BYTES || !is_request(r))
		return 0;
	__builtin_memset(out, 0, sizeof(*out));
	err_status = NGX_GET(r, err_status);
	out->status = err_status ? err_status : NGX_GET(r, headers_out.status);
	s->held.tail_len = at + sizeof(*out);
	u = NGX_GET(r, upstream);
	NGX_COPY(s->upstream, u);
	out->attempts_len = draft_attempts(s, sub->attempts, SUBREQUEST_ATTEMPTS_MAX, generation,
					   NGX_GET(r, upstream_states), u);
	out->upstreams_seen = s->states.nelts;
	len = NGX_GET(r, uri.len);
	out->uri_len = append_text(s, NGX_GET(r, uri.data), len, SUBREQUEST_URI_MAX);
	out->uri_cut = len > SUBREQUEST_URI_MAX;
	put(s, at, out, sizeof(*out));
	s->held.draft.subrequests_len++;
	return 0;
}

static __always_inline void draft_subrequests(struct worker *w, struct scratch *s,
					      struct connection *conn)
{
	s->held.draft.subrequests_seen = conn->subrequests_seen;
	for (__u32 i = 0; i < SUBREQUESTS_MAX && i < conn->subrequests_seen; i++)
		draft_subrequest(w, s, conn->subrequests[i], conn->generation);
}

#endif
