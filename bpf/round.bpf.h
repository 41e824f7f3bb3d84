/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HTTP/2: what leads from the bytes that are sent to the streams. nginx sends queued frames in
 * rounds (ngx_http_v2_send_output_queue()), and each frame has its stream.
 */
#ifndef NGX_BPF_ROUND_BPF_H
#define NGX_BPF_ROUND_BPF_H

#include "http2.bpf.h"
#include "walk.bpf.h"

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

/*
 * Notes when the response was sent. The last round with a frame of it has not sent its last bytes
 * if c->sent has not grown in it, or if OpenSSL's buffer may have some.
 */
__noinline int stream_ended(struct worker *w, struct connection *stream, __u64 sent)
{
	struct ngx_connection_s *c;
	struct connection *conn;
	struct output *output;
	struct multiplex *m;

	if (!w || !stream || !stream->last_round)
		return 0;
	c = (void *)stream->parent;
	conn = connection_find(w, stream->parent);
	m = conn ? multiplex_of(w, conn, c) : NULL;
	if (!m || sent == stream->first_sent)
		return 0;
	stream_settle(m, stream);
	if (sent == stream->last_sent || (m->is_blocked && NGX_GET_OR(c, ssl, NULL)))
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
	struct ngx_connection_s *c;
	struct connection *conn;
	struct multiplex *m;
	struct ngx_http_v2_out_frame_s *frame;
	struct ngx_http_v2_stream_s *stream; /* that of the frame before */
};

/* The members of a frame that are read, in one read. False: it cannot be read. */
static __always_inline bool frame_read(struct frames *frames)
{
	struct ngx_http_v2_out_frame_s *frame = frames->frame;
	void *copy = frames->w->head;

	return NGX_END(frame, stream) <= sizeof(frames->w->head) && /* true in all known layouts */
	       !bpf_probe_read_user(copy, NGX_END(frame, stream), frame);
}

/*
 * A stream has a frame in this round. If nothing of its response was sent before, which is what its
 * c->sent counts, the response begins in this round at the earliest. It is global, since it is
 * called by a step of a walk: walk.bpf.h.
 */
__noinline int mark_stream(struct worker *w, struct multiplex *m, struct connection *conn, __u64 c,
			   __u64 address)
{
	struct ngx_http_v2_stream_s *stream = (void *)address;
	struct ngx_http_request_s *r;
	struct ngx_connection_s *fake;
	struct connection *of_stream;
	__u64 sent;

	if (!w || !m || !conn)
		return 0;
	r = NGX_GET(stream, request);
	if (!request_copy(w, r, NGX_END(r, headers_out.status)))
		return 0;
	fake = OF_HEAD(w, connection);
	of_stream = connection_find(w, (__u64)fake);
	if (!(of_stream && of_stream->first_round) && !has_response_in(w, r))
		return 0;
	if (!of_stream)
		of_stream = stream_on(w, m, conn, (void *)c, r);
	else if (of_stream->is_early)
		stream_begin(w, m, conn, of_stream, (__u64)r);
	if (!of_stream)
		return 0;
	sent = NGX_GET(fake, sent);
	if (!of_stream->first_round)
		of_stream->first_sent = sent;
	if (sent == of_stream->first_sent)
		of_stream->first_round = m->round;
	stream_settle(m, of_stream);
	of_stream->last_sent = sent;
	of_stream->last_round = m->round;
	return 0;
}

/* A frame shows that its stream's response begins or goes on in this round. */
static __always_inline bool mark_frame(struct frames *frames, __u32 index)
{
	struct ngx_http_v2_out_frame_s *frame = NULL;
	struct ngx_http_v2_stream_s *stream;

	if (!frames->frame || !frame_read(frames))
		return false;
	frames->frame = NGX_IN(frames->w->head, frame, next);
	stream = NGX_IN(frames->w->head, frame, stream);
	if (!stream || stream == frames->stream)
		return true;
	frames->stream = stream;
	mark_stream(frames->w, frames->m, frames->conn, (__u64)frames->c, (__u64)stream);
	return true;
}

DEFINE_WALK(mark_frame, struct frames, FRAMES_MAX)

/*
 * ngx_http_v2_send_output_queue(h2c): a round begins. A frame stays queued until all of it is sent.
 * Nothing is sent while the socket takes nothing.
 */
static __always_inline void streams_output(struct worker *w, struct ngx_http_v2_connection_s *h2c)
{
	struct ngx_connection_s *c = NGX_GET(h2c, connection);
	struct ngx_event_s *ev = NGX_GET(c, write);
	struct frames frames = {.w = w, .c = c};

	if (!(NGX_GET(ev, write) & NGX_EVENT_READY))
		return;
	frames.conn = connection_find(w, (__u64)c);
	frames.m = frames.conn ? multiplex_of(w, frames.conn, c) : NULL;
	if (!frames.m)
		return;
	frames.m->round++;
	frames.frame = NGX_GET(h2c, last_out);
	walk_mark_frame(&frames);
}

#endif
