/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HTTP/2: a connection has many requests at the same time, each with an ngx_connection_t of its own
 * that has no socket. What leads from the bytes that are read to the streams: nginx counts the
 * streams of a connection, and each stream's number is in its c->requests, so that the streams that
 * were counted since a read were made by that read. The bytes that are sent are in round.bpf.h.
 */
#ifndef NGX_BPF_HTTP2_BPF_H
#define NGX_BPF_HTTP2_BPF_H

#include "watch.bpf.h"

/* Whether c->data is an ngx_http_v2_connection_t: its first member points back. */
static __always_inline bool is_multiplexed(struct ngx_connection_s *c,
					   struct ngx_http_v2_connection_s *h2c)
{
	return NGX_GET(h2c, connection) == c;
}

/*
 * The entry that the streams of a connection share; NULL when the map is full. The entry of an
 * earlier connection that used the same ngx_connection_t is overwritten.
 */
static __always_inline struct multiplex *multiplex_of(struct worker *w, struct connection *conn,
						      struct ngx_connection_s *c)
{
	struct connection_key key = {.connection = (__u64)c, .pid = w->pid};

	struct multiplex *m;

	if (conn->is_multiplexed)
		return bpf_map_lookup_elem(&multiplexes, &key);
	m = entry_create(&multiplexes, &key, BPF_ANY);
	if (m)
		conn->is_multiplexed = 1;
	return m;
}

/*
 * Finds the read that brought the first byte of the stream with this number: its time, or that of
 * the end of the handshake if the byte came with that. 0: before tracing began.
 */
static __always_inline void stream_first(struct multiplex *m, struct connection *conn,
					 struct connection *stream, __u64 number)
{
	__u64 streams = ~0ULL, at_ns = 0, wait_ns = 0;

	if (number > m->streams) {
		at_ns = conn->last_read_ns;
		wait_ns = conn->read_wait_ns;
	}
	for (__u32 i = 0; i < INPUTS_MAX; i++) {
		if (m->inputs[i].streams < number || m->inputs[i].streams >= streams)
			continue;
		streams = m->inputs[i].streams;
		at_ns = m->inputs[i].at_ns;
		wait_ns = m->inputs[i].wait_ns;
	}
	stream->request_first_ns = at_ns ? at_ns : conn->handshake.last_ns;
	stream->read_wait_ns = wait_ns;
}

/* The connection that the stream of `r` is on. */
static __always_inline struct ngx_connection_s *connection_of_stream(struct ngx_http_request_s *r)
{
	struct ngx_http_v2_stream_s *stream = NGX_GET_OR(r, stream, NULL);
	struct ngx_http_v2_connection_s *h2c;

	if (!stream)
		return NULL;
	h2c = NGX_GET(stream, connection);
	return NGX_GET(h2c, connection);
}

/*
 * More of the body of a stream is to come: each read from now on checks it. If too many streams are
 * checked already, the read that completes it may go unnoticed.
 */
static __always_inline void body_follow(struct multiplex *m, struct connection *stream,
					struct ngx_connection_s *fake, struct ngx_http_request_s *r)
{
	struct watch *watch;

	for (__u32 i = 0; i < BODIES_MAX; i++) {
		watch = &m->bodies[i];
		if (watch->connection && watch->connection != (__u64)fake)
			continue;
		watch_begin(watch, stream, (__u64)fake);
		watch_body(watch, r);
		stream->is_followed = 1;
		stream->is_body_unsure = 0;
		return;
	}
	stream->is_body_unsure = 1;
}

/*
 * Whether the last frame that nginx has read belongs to this stream: h2c->state.sid keeps the
 * number until the next frame. Then that frame has completed the body.
 */
static __always_inline bool stream_is_last_read(struct ngx_http_request_s *r)
{
	struct ngx_http_v2_stream_s *stream = NGX_GET_OR(r, stream, NULL);
	struct ngx_http_v2_connection_s *h2c;
	struct ngx_http_v2_node_s *node;

	if (!stream || !bpf_core_field_exists(stream->node) ||
	    !bpf_core_field_exists(struct ngx_http_v2_state_t, sid) ||
	    !bpf_core_field_exists(struct ngx_http_v2_node_s, id))
		return false;
	h2c = NGX_GET(stream, connection);
	node = NGX_GET(stream, node);
	return node && NGX_GET(node, id) == NGX_GET(h2c, state.sid);
}

/*
 * The body of a stream that was not checked before. nginx begins to work on a request when its body
 * is complete. So the last read has completed it if it brought the header, too (`is_new`), or if
 * its last frame belongs to this stream. Otherwise the time is not known.
 */
static __always_inline void stream_body(struct multiplex *m, struct connection *conn,
					struct connection *stream, struct ngx_http_request_s *r,
					struct ngx_connection_s *fake, bool is_new)
{
	struct ngx_http_request_body_t *rb;

	if (!knows_bodies())
		return;
	if (body_is_open(r))
		return body_follow(m, stream, fake, r);
	rb = NGX_GET(r, request_body);
	if (!rb || NGX_GET(rb, rest) || !body_is_kept(rb))
		return;
	if (is_new)
		stream->body_ns = stream->request_first_ns;
	else if (stream_is_last_read(r))
		stream->body_ns = conn->last_read_ns;
}

/*
 * Looks at a body that may be complete. It was not when bytes were read the last time, `before`.
 * Returns false when it is.
 */
static __always_inline bool body_look(struct worker *w, struct watch *watch, __u64 before)
{
	struct connection *stream = watch_stream(w, watch);
	struct ngx_http_request_s *r;

	if (!stream)
		return false;
	stream->body_ns = before;
	r = NGX_GET((struct ngx_connection_s *)watch->connection, data);
	stream->is_followed = is_request(r) && body_is_open(r);
	if (stream->is_followed)
		watch_body(watch, r);
	return stream->is_followed;
}

/* Bytes were read: they may be part of any body that is incomplete. */
static __always_inline void bodies_received(struct worker *w, struct multiplex *m, __u64 before)
{
	struct watch *watch;

	for (__u32 i = 0; i < BODIES_MAX; i++) {
		watch = &m->bodies[i];
		if (watch->connection && !is_unchanged(watch) && !body_look(w, watch, before))
			watch->connection = 0;
	}
}

/*
 * A new entry for a stream of a connection, of whose body nothing is known yet. Not inlined: it is
 * called from where the verifier has much to follow.
 */
static __noinline struct connection *stream_early(struct worker *w, struct multiplex *m,
						  struct connection *conn,
						  struct ngx_connection_s *c,
						  struct ngx_http_request_s *r)
{
	struct ngx_connection_s *fake = NGX_GET(r, connection);
	struct connection *stream;
	__u64 number;

	if (!w || !m || !conn)
		return NULL;
	stream = connection_new(w, (__u64)fake);
	if (!stream)
		return NULL;
	number = NGX_GET(fake, requests);
	stream->accepted_ns = conn->accepted_ns;
	stream_first(m, conn, stream, number);
	stream->local = conn->local;
	stream->peer = conn->peer;
	stream->established_ns = conn->established_ns;
	if (number == 1)
		stream->handshake = conn->handshake;
	stream->handshake.is_tls = conn->handshake.is_tls;
	if (!stream->request_first_ns)
		stream->flags = REQUEST_ADOPTED;
	stream->is_stream = 1;
	stream->parent = (__u64)c;
	stream->is_early = 1;
	return stream;
}

/* nginx begins to work on a request, or ends it: its body is looked at for the first time. */
__noinline int stream_begin(struct worker *w, struct multiplex *m, struct connection *conn,
			    struct connection *stream, __u64 request)
{
	struct ngx_http_request_s *r = (void *)request;
	struct ngx_connection_s *fake;

	if (!w || !m || !conn || !stream)
		return 0;
	stream->is_early = 0;
	if (!NGX_GET(r, write_event_handler))
		return 0;
	fake = NGX_GET(r, connection);
	stream_body(m, conn, stream, r, fake, NGX_GET(fake, requests) > m->streams);
	return 0;
}

/* A new entry for a stream on which nginx begins to work. */
static __always_inline struct connection *stream_on(struct worker *w, struct multiplex *m,
						    struct connection *conn,
						    struct ngx_connection_s *c,
						    struct ngx_http_request_s *r)
{
	struct connection *stream = stream_early(w, m, conn, c, r);

	if (stream)
		stream_begin(w, m, conn, stream, (__u64)r);
	return stream;
}

/*
 * The same where only the request is known. `is_early`: nginx has not begun to work on it, and may
 * not have looked at its body.
 */
static __always_inline struct connection *stream_new(struct worker *w, struct ngx_http_request_s *r,
						     bool is_early)
{
	struct ngx_connection_s *c = connection_of_stream(r);
	struct connection *conn = c ? connection_find(w, (__u64)c) : NULL;
	struct multiplex *m = conn ? multiplex_of(w, conn, c) : NULL;

	if (!m)
		return NULL;
	return is_early ? stream_early(w, m, conn, c, r) : stream_on(w, m, conn, c, r);
}

/* nginx begins to work on a stream that has had an entry before. */
static __always_inline void stream_resume(struct worker *w, struct connection *stream,
					  struct ngx_http_request_s *r)
{
	struct connection *conn = connection_find(w, stream->parent);
	struct multiplex *m = conn ? multiplex_of(w, conn, (void *)stream->parent) : NULL;

	if (m)
		stream_begin(w, m, conn, stream, (__u64)r);
}

/* The entry of a request: that of its connection, or of its stream. */
static __always_inline struct connection *
connection_of(struct worker *w, struct ngx_http_request_s *r, struct ngx_connection_s *c)
{
	struct connection *conn = connection_find(w, (__u64)c);

	if (!conn)
		return stream_new(w, r, false);
	if (conn->is_early)
		stream_resume(w, conn, r);
	return conn;
}

/* Bytes were read. The streams that nginx has counted by now were made by the reads before. */
static __always_inline void streams_received(struct worker *w, struct connection *conn,
					     struct ngx_connection_s *c,
					     struct ngx_http_v2_connection_s *h2c, __u64 now)
{
	struct multiplex *m = multiplex_of(w, conn, c);
	struct ngx_http_v2_stream_s *stream;
	struct ngx_http_request_s *r;
	struct ngx_connection_s *fake;
	struct connection *of_stream;
	struct input *input;
	__u64 streams;

	if (!m)
		return;
	streams = NGX_GET(c, requests);
	if (streams > m->streams) {
		input = &m->inputs[m->inputs_seen++ & (INPUTS_MAX - 1)];
		input->streams = streams;
		input->at_ns = conn->last_read_ns;
		input->wait_ns = conn->read_wait_ns;
		m->streams = streams;
	}
	bodies_received(w, m, conn->last_read_ns);
	/* A stream of which nginx has read half a frame, of its header or of its body. */
	stream = NGX_GET_OR(h2c, state.stream, NULL);
	if (!stream)
		return;
	r = NGX_GET(stream, request);
	if (!is_request(r))
		return;
	fake = NGX_GET(r, connection);
	of_stream = connection_of(w, r, fake);
	if (!of_stream)
		return;
	if (!NGX_GET(r, write_event_handler))
		of_stream->header_ns = now;
	else if (!of_stream->is_followed && body_is_open(r))
		body_follow(m, of_stream, fake, r);
}

/* A stream ends whose body was not complete when bytes were read the last time. */
__noinline int body_end(struct worker *w, struct connection *stream, __u64 fake)
{
	struct connection *conn;
	struct multiplex *m;

	if (!w || !stream)
		return 0;
	conn = connection_find(w, stream->parent);
	m = conn ? multiplex_of(w, conn, (void *)stream->parent) : NULL;
	if (!m)
		return 0;
	stream->body_ns = conn->last_read_ns;
	for (__u32 i = 0; i < BODIES_MAX; i++) {
		if (m->bodies[i].connection == fake)
			m->bodies[i].connection = 0;
	}
	return 0;
}

#endif
