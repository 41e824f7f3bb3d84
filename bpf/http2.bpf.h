/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HTTP/2: a connection has many requests at the same time, each with an ngx_connection_t of its own
 * that has no socket. Two facts lead from the bytes to the streams. Bytes read: nginx counts the
 * streams of a connection, and each stream's number is in its c->requests, so that the streams that
 * were counted since a read were made by that read. Bytes sent: nginx sends queued frames in rounds
 * (ngx_http_v2_send_output_queue()), and each frame has its stream.
 */
#ifndef NGX_BPF_HTTP2_BPF_H
#define NGX_BPF_HTTP2_BPF_H

#include "body.bpf.h"
#include "connection.bpf.h"
#include "walk.bpf.h"

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
 * The time of the read that brought the first byte of the stream with this number, or of the end of
 * the handshake if it came with that. 0: before tracing began.
 */
static __always_inline __u64 stream_first_ns(struct multiplex *m, struct connection *conn,
					     __u64 number)
{
	__u64 streams = ~0ULL, at_ns = 0, handshake_ns = conn->handshake.last_ns;

	if (number > m->streams)
		return conn->last_read_ns ? conn->last_read_ns : handshake_ns;
	for (__u32 i = 0; i < INPUTS_MAX; i++) {
		if (m->inputs[i].streams < number || m->inputs[i].streams >= streams)
			continue;
		streams = m->inputs[i].streams;
		at_ns = m->inputs[i].at_ns;
	}
	return at_ns ? at_ns : handshake_ns;
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
					struct ngx_connection_s *fake)
{
	for (__u32 i = 0; i < BODIES_MAX; i++) {
		if (!m->bodies[i] || m->bodies[i] == (__u64)fake) {
			m->bodies[i] = (__u64)fake;
			stream->is_body_unsure = 0;
			return;
		}
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
		return body_follow(m, stream, fake);
	rb = NGX_GET(r, request_body);
	if (!rb || NGX_GET(rb, rest) || !body_is_kept(rb))
		return;
	if (is_new)
		stream->body_ns = stream->request_first_ns;
	else if (stream_is_last_read(r))
		stream->body_ns = conn->last_read_ns;
}

/* Bytes were read: they may be part of any body that is incomplete. */
static __always_inline void bodies_received(struct worker *w, struct multiplex *m, __u64 now)
{
	struct ngx_http_request_s *r;
	struct connection *stream;
	__u32 i;

	for (i = 0; i < BODIES_MAX; i++) {
		if (!m->bodies[i])
			continue;
		stream = connection_find(w, m->bodies[i]);
		r = NGX_GET((struct ngx_connection_s *)m->bodies[i], data);
		if (stream && is_request(r) && body_is_open(r))
			stream->body_ns = now;
		else
			m->bodies[i] = 0;
	}
}

/* A new entry for a stream. Not inlined: it is called from where the verifier has much to follow.
 */
static __noinline struct connection *stream_new(struct worker *w, struct ngx_http_request_s *r,
						struct ngx_connection_s *fake)
{
	struct ngx_connection_s *c;
	struct connection *conn, *stream;
	struct multiplex *m;
	__u64 number;

	if (!w)
		return NULL;
	c = connection_of_stream(r);
	conn = c ? connection_find(w, (__u64)c) : NULL;
	m = conn ? multiplex_of(w, conn, c) : NULL;
	stream = m ? connection_new(w, (__u64)fake) : NULL;
	if (!stream)
		return NULL;
	number = NGX_GET(fake, requests);
	stream->accepted_ns = conn->accepted_ns;
	stream->request_first_ns = stream_first_ns(m, conn, number);
	stream->local = conn->local;
	stream->peer = conn->peer;
	if (number == 1)
		stream->handshake = conn->handshake;
	if (!stream->request_first_ns)
		stream->flags = REQUEST_ADOPTED;
	stream->is_stream = 1;
	if (NGX_GET(r, write_event_handler))
		stream_body(m, conn, stream, r, fake, number > m->streams);
	return stream;
}

/* The entry of a request: that of its connection, or of its stream. */
static __always_inline struct connection *
connection_of(struct worker *w, struct ngx_http_request_s *r, struct ngx_connection_s *c)
{
	struct connection *conn = connection_find(w, (__u64)c);

	return conn ? conn : stream_new(w, r, c);
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
		m->streams = streams;
	}
	bodies_received(w, m, now);
	/* A stream of which nginx has read half a frame, of its header or of its body. */
	stream = NGX_GET(h2c, state.stream);
	if (!stream)
		return;
	r = NGX_GET(stream, request);
	if (!is_request(r))
		return;
	fake = NGX_GET(r, connection);
	of_stream = connection_of(w, r, fake);
	if (!of_stream)
		return;
	if (!NGX_GET(r, write_event_handler)) {
		of_stream->header_ns = now;
	} else if (body_is_open(r)) {
		of_stream->body_ns = now;
		body_follow(m, of_stream, fake);
	}
}

/* Bytes that were sent, or could not be, belong to the round that nginx is in. */
static __always_inline void streams_sent(struct worker *w, struct connection *conn,
					 struct ngx_connection_s *c, int ret, __u64 now)
{
	struct multiplex *m = multiplex_of(w, conn, c);
	struct output *output;

	if (!m)
		return;
	m->is_blocked = ret < 0;
	if (ret < 0)
		return;
	output = &m->outputs[m->round & (OUTPUTS_MAX - 1)];
	if (output->round != m->round) {
		output->round = m->round;
		output->first_ns = now;
	}
	output->last_ns = now;
}

/*
 * The bytes sent in this round. If it sent none, since they went to OpenSSL's buffer, those of the
 * next round that did.
 */
static __always_inline struct output *output_of(struct multiplex *m, __u64 round)
{
	struct output *output;

	for (__u32 i = 0; i < OUTPUTS_MAX && round <= m->round; i++, round++) {
		output = &m->outputs[round & (OUTPUTS_MAX - 1)];
		if (output->round == round)
			return output;
	}
	return NULL;
}

/* Notes when the response began, before its round is overwritten. */
static __always_inline void stream_settle(struct multiplex *m, struct connection *stream)
{
	struct output *output;

	if (stream->response_first_ns || !stream->first_round)
		return;
	output = output_of(m, stream->first_round);
	if (output)
		stream->response_first_ns = output->first_ns;
}

/* Notes when the last bytes of the response were sent, unless OpenSSL's buffer may have some. */
__noinline int stream_ended(struct worker *w, struct connection *stream, __u64 r)
{
	struct ngx_connection_s *c = connection_of_stream((void *)r);
	struct connection *conn;
	struct output *output;
	struct multiplex *m;

	if (!w || !stream || !stream->last_round)
		return 0;
	conn = c ? connection_find(w, (__u64)c) : NULL;
	m = conn ? multiplex_of(w, conn, c) : NULL;
	if (!m)
		return 0;
	stream_settle(m, stream);
	if (m->is_blocked && NGX_GET_OR(c, ssl, NULL))
		return 0;
	output = output_of(m, stream->last_round);
	if (output)
		stream->response_last_ns =
			output->round == stream->last_round ? output->last_ns : output->first_ns;
	return 0;
}

/* The context of a walk through the frames of a round. */
struct frames {
	struct worker *w;
	struct multiplex *m;
	struct ngx_http_v2_out_frame_s *frame;
	struct ngx_http_v2_stream_s *stream; /* that of the frame before */
};

/* A frame shows that its stream's response begins or goes on in this round. */
static __always_inline bool mark_frame(struct frames *frames, __u32 index)
{
	struct ngx_http_v2_out_frame_s *frame = frames->frame;
	struct ngx_http_v2_stream_s *stream;
	struct ngx_http_request_s *r;
	struct ngx_connection_s *fake;
	struct connection *conn;

	if (!frame)
		return false;
	frames->frame = NGX_GET(frame, next);
	stream = NGX_GET(frame, stream);
	if (!stream || stream == frames->stream)
		return true;
	frames->stream = stream;
	r = NGX_GET(stream, request);
	if (!is_request(r) || !has_response(r))
		return true;
	fake = NGX_GET(r, connection);
	conn = connection_of(frames->w, r, fake);
	if (!conn)
		return true;
	stream_settle(frames->m, conn);
	if (!conn->first_round || !NGX_GET(fake, sent))
		conn->first_round = frames->m->round;
	conn->last_round = frames->m->round;
	return true;
}

DEFINE_WALK(mark_frame, struct frames, FRAMES_MAX)

/*
 * ngx_http_v2_send_output_queue(h2c): a round begins. A frame stays queued until all of it is sent.
 */
static __always_inline void streams_output(struct worker *w, struct ngx_http_v2_connection_s *h2c)
{
	struct ngx_connection_s *c = NGX_GET(h2c, connection);
	struct connection *conn = connection_find(w, (__u64)c);
	struct frames frames = {.w = w};

	if (!conn || !is_multiplexed(c, h2c))
		return;
	frames.m = multiplex_of(w, conn, c);
	if (!frames.m)
		return;
	frames.m->round++;
	frames.frame = NGX_GET(h2c, last_out);
	walk_mark_frame(&frames);
}

#endif
