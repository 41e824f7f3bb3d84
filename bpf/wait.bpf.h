/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What nginx itself makes a request wait for: a delay of limit_req, the subrequest of auth_request,
 * the lock of an entry of the cache, and a name server. The first three end in a function that is
 * probed and that runs for such requests only, and so does the fourth when the server has not
 * answered in time; otherwise it ends with a connect, right after the answer was read. Nothing runs
 * when a wait begins. But nginx comes to it in the same turn of its loop in which it had all that
 * came before: the header, the body, or the end of another wait. Modules that are not nginx's own
 * may have made the request wait in between.
 */
#ifndef NGX_BPF_WAIT_BPF_H
#define NGX_BPF_WAIT_BPF_H

#include "http2.bpf.h"
#include "phase.bpf.h"

static __always_inline __u64 later(__u64 one, __u64 other)
{
	return one > other ? one : other;
}

/* Whether nginx comes to a wait of this kind when it has had the whole body only. */
static __always_inline bool is_after_body(enum wait_kind kind)
{
	return kind == WAIT_CACHE_LOCK || kind == WAIT_RESOLVE;
}

/* When the request was last not waiting for nginx, as far as is known; 0: it is not. */
static __always_inline __u64 wait_from(struct worker *w, struct connection *conn,
				       enum wait_kind kind)
{
	__u64 first = request_first_ns(conn), from;

	if (!first || conn->flags & REQUEST_ADOPTED)
		return 0;
	from = later(first, later(conn->header_ns, conn->previous_ended_ns));
	from = later(from, conn->waited_ns);
	if (is_after_body(kind))
		from = later(from, conn->body_ns);
	/* The last datagram has completed what was found incomplete when it came. */
	if (knows_quic() && conn->stage != STAGE_NONE &&
	    (is_after_body(kind) || conn->stage != STAGE_BODY))
		from = later(from, w->opening_ns);
	return from;
}

/* Whether an attempt at an upstream began after this moment: it is not known when it ended. */
static __always_inline bool has_tried_since(struct connection *conn, __u64 from)
{
	struct attempt_times *a;

	for (__u32 i = 0; i < ATTEMPTS_MAX; i++) {
		a = &conn->attempts[i];
		if (a->generation == conn->generation && a->connect_ns > from)
			return true;
	}
	return false;
}

/* Whether the request is a stream with a body, of which it is not known here when it was whole. */
static __always_inline bool has_body_in_frames(struct connection *conn,
					       struct ngx_http_request_s *r)
{
	struct ngx_http_request_body_t *rb;

	if (!conn->is_stream && !conn->stream.connection)
		return false;
	if (!knows_bodies())
		return true;
	rb = NGX_GET(r, request_body);
	return rb && body_is_kept(rb);
}

/*
 * Whether a module that is not nginx's own has handled a phase of the request by now. One that was
 * loaded is far from nginx's own code, which has the function that calls the first handler.
 */
static __always_inline bool was_handled_elsewhere(struct worker *w, struct ngx_http_request_s *r)
{
	__u64 checker = 0, handler, index = PHASE_HANDLERS_MAX;
	void *handlers;

	if (modules_foreign || !bpf_core_field_exists(r->main_conf) ||
	    bpf_probe_read_user(&index, sizeof(index),
				(void *)&r->main + NGX_HTTP_REQUEST_PHASE_HANDLER) ||
	    index >= PHASE_HANDLERS_MAX)
		return true;
	handlers = phase_handlers(NGX_GET(r, main_conf));
	if (!handlers || bpf_probe_read_user(&checker, sizeof(checker), handlers))
		return true;
	for (__u32 i = 0; i < PHASE_HANDLERS_MAX && i <= index; i++) {
		handler = phase_handler(handlers, i);
		if (handler && (handler - checker + (1ULL << 31)) >> 32)
			return true;
	}
	return false;
}

/*
 * A wait has ended at `now`, or goes on after a look at whether it may end. `r` is the main
 * request.
 */
static __always_inline void wait_add(struct worker *w, struct connection *conn,
				     struct ngx_http_request_s *r, enum wait_kind kind, __u64 now)
{
	__u64 from = wait_from(w, conn, kind), *wait = &conn->waits[kind & (WAIT_KINDS - 1)];

	conn->waited_ns = now;
	if (!from || from > now || has_tried_since(conn, from) ||
	    (is_after_body(kind) && has_body_in_frames(conn, r)))
		*wait = WAIT_UNKNOWN;
	else if (*wait != WAIT_UNKNOWN)
		*wait += now - from;
	if (!conn->is_wait_mixed)
		conn->is_wait_mixed = was_handled_elsewhere(w, r);
}

/*
 * The first connect of a request begins. If it follows an answer of a name server, which is the
 * last thing that the worker has read, the request has waited for that: nginx connects in the same
 * call in which it reads the answer (ngx_resolver_udp_read()).
 */
static __always_inline void name_resolved(struct worker *w, __u64 client,
					  struct ngx_http_request_s *r, __u64 now)
{
	struct ngx_http_upstream_s *u = NGX_GET(r, upstream);
	struct connection *conn = connection_find(w, client);
	struct ngx_connection_s *c;

	if (!waits_are_known || !conn || !host_of_variable(u) ||
	    wait_from(w, conn, WAIT_RESOLVE) >= w->answer_ns)
		return;
	/* The datagrams of clients come on a socket that listens. */
	c = (void *)connection_of_epoll((void *)w->answer_sk);
	if (c && !NGX_GET(c, listening))
		wait_add(w, conn, r, WAIT_RESOLVE, now);
}

/*
 * The request that waits, from the argument of the function that ends the wait: the request itself
 * (of auth_request: the subrequest), or an event. The first member of an event points to the
 * request or, when a name was not resolved, to the resolver's context, which has it at the offset
 * `data`.
 */
static __always_inline struct ngx_http_request_s *waiting_request(__u64 argument,
								  enum wait_kind kind, __u32 data)
{
	if (kind != WAIT_CACHE_LOCK && kind != WAIT_RESOLVE)
		return (void *)argument;
	if (bpf_probe_read_user(&argument, sizeof(argument), (void *)argument))
		return NULL;
	if (kind == WAIT_RESOLVE &&
	    bpf_probe_read_user(&argument, sizeof(argument), (void *)argument + data))
		return NULL;
	return (void *)argument;
}

/*
 * A function was entered that ends a wait. What a subrequest waits for belongs to auth_request, or
 * does not hold up the main request alone.
 */
static __always_inline void request_woken(struct worker *w, __u64 argument, enum wait_kind kind,
					  __u32 data)
{
	__u64 now = bpf_ktime_get_ns(), c;
	struct ngx_http_request_s *r = waiting_request(argument, kind, data), *main;
	struct connection *conn;

	if (!request_head(w, r))
		return;
	c = (__u64)OF_HEAD(w, connection);
	main = NGX_GET(r, main);
	if ((main == r) == (kind == WAIT_AUTH) || !is_request(main))
		return;
	conn = connection_find(w, c);
	if (!conn)
		conn = stream_new(w, main, true);
	if (!conn)
		return;
	wait_add(w, conn, main, kind, now);
	if (kind == WAIT_RESOLVE)
		conn->unresolved = (__u64)NGX_GET(main, upstream);
}

#endif
