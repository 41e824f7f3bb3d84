/* SPDX-License-Identifier: GPL-2.0-only */
/* The list of a worker's HTTP/3 streams whose header or body is incomplete. */
#ifndef NGX_BPF_OPENING_BPF_H
#define NGX_BPF_OPENING_BPF_H

#include "body.bpf.h"
#include "quic.bpf.h"
#include "walk.bpf.h"

/*
 * A stream leaves the list too early. The end of its header is not going to be seen, so that its
 * begin is not reported either. If the stream has ended, its ngx_connection_t may be another one's.
 */
static __always_inline void opening_evict(struct worker *w, __u64 c)
{
	struct connection *conn = connection_find(w, c);

	if (!conn || !conn->stream.connection)
		return;
	conn->request_first_ns = 0;
	conn->is_body_unsure = 1;
}

/* Adds a stream to the list. When that is full, the older ones make room, one after the other. */
static __always_inline void opening_add(struct worker *w, __u64 c)
{
	__u64 n = w->opening_len;

	if (n >= OPENING_MAX) {
		n = w->opening_evicted++ & (OPENING_MAX - 1);
		opening_evict(w, w->opening[n]);
	} else {
		w->opening_len = n + 1;
	}
	barrier_var(n);
	w->opening[n & (OPENING_MAX - 1)] = c;
}

/*
 * A stream leaves the list: its header is complete, and so is its body, or none is known of. A body
 * without a length may still come if nginx has not begun to read it.
 */
static __always_inline void opening_ends(struct connection *conn, struct ngx_http_request_s *r)
{
	struct ngx_http_request_body_t *rb = NGX_GET_OR(r, request_body, NULL);

	if (!rb)
		conn->is_body_unsure = 1;
}

/* The context of a walk through the list. */
struct opening {
	struct worker *w;
	__u64 now;
};

/* The datagram that was just read may have completed the stream, and is its time until a next one.
 */
static __always_inline bool follow_opening(struct opening *opening, __u32 index)
{
	struct worker *w = opening->w;
	struct ngx_connection_s *c;
	struct ngx_http_request_s *r;
	struct connection *conn;
	__u64 n = w->opening_kept;

	if (index >= w->opening_len)
		return false;
	c = (void *)w->opening[index & (OPENING_MAX - 1)];
	conn = connection_find(w, (__u64)c);
	/* nginx has closed the stream: it sets c->fd to -1. */
	if (!conn || !quic_stream_of(c) || NGX_GET(c, fd) == (ngx_socket_t)-1)
		return true;
	r = NGX_GET(c, data);
	if (!is_request(r))
		conn->request_first_ns = opening->now;
	else if (!NGX_GET(r, write_event_handler))
		conn->header_ns = opening->now;
	else if (body_is_open(r))
		conn->body_ns = opening->now;
	else {
		opening_ends(conn, r);
		return true;
	}
	barrier_var(n);
	w->opening[n & (OPENING_MAX - 1)] = (__u64)c;
	w->opening_kept = n + 1;
	return true;
}

DEFINE_WALK(follow_opening, struct opening, OPENING_MAX)

#endif
