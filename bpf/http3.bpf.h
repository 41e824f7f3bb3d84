/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HTTP/3: streams are inside datagrams, which a worker reads and sends on one socket for all
 * clients. A stream has an ngx_connection_t of its own. ngx_http_init_connection() is called for it
 * in the same turn of nginx's loop in which the datagram was read that opened it; the rest of its
 * header comes with later datagrams. What nginx sends on a stream becomes frames, and
 * ngx_quic_output() makes packets of them, mostly after the request was freed. While such a packet
 * is sent, its frames are in a queue.
 */
#ifndef NGX_BPF_HTTP3_BPF_H
#define NGX_BPF_HTTP3_BPF_H

#include "opening.bpf.h"

/*
 * When the connection was accepted for which ngx_http_init_connection() is entered. A connection of
 * QUIC exists since its first datagram was read, which may have requests in it (0-RTT).
 */
static __always_inline __u64 accept_ns(struct worker *w, struct ngx_connection_s *c)
{
	__u64 now = bpf_ktime_get_ns(), read_ns;

	if (!knows_quic() || !w->datagrams[0].sk || NGX_GET(c, type) != SOCK_DGRAM)
		return now;
	read_ns = datagram_ns(w, c);
	return read_ns ? read_ns : now;
}

/* The entry of the connection that a stream is on. It may have been accepted before tracing. */
static __always_inline struct connection *quic_parent(struct worker *w, __u64 parent)
{
	struct connection *conn = connection_find(w, parent);

	return conn ? conn : connection_adopt(w, parent);
}

/* ngx_http_init_connection(c), of a stream. */
static __always_inline void stream_opened(struct worker *w, struct ngx_connection_s *c,
					  struct ngx_quic_stream_s *qs)
{
	struct connection *conn, *parent;
	struct stream_key key = {.pid = w->pid};
	__u64 value = (__u64)c;

	key.connection = (__u64)NGX_GET(qs, parent);
	key.id = NGX_GET(qs, id);
	parent = quic_parent(w, key.connection);
	connection_note(w, value);
	conn = connection_new(w, value);
	if (!conn || !parent)
		return;
	conn->accepted_ns = parent->accepted_ns;
	if (key.id & NGX_QUIC_STREAM_OTHER)
		return;
	if (!bpf_map_update_elem(&quic_streams, &key, &value, BPF_ANY))
		conn->stream = key;
	opening_add(w, conn, value);
	conn->request_first_ns = datagram_ns(w, c);
}

/* ngx_http_init_connection(c), of a connection or of a stream. */
static __always_inline void connection_opened(struct worker *w, struct ngx_connection_s *c)
{
	struct ngx_quic_stream_s *qs = quic_stream_of(c);
	struct connection *conn;

	/* A stream that had the same ngx_connection_t may have ended without a request. */
	conn = knows_quic() ? connection_find(w, (__u64)c) : NULL;
	if (conn && conn->stream.connection) {
		opening_end(w, conn, (__u64)c);
		quic_stream_forget(conn, (__u64)c);
	}
	if (qs)
		stream_opened(w, c, qs);
	else
		connection_accepted(w, c, accept_ns(w, c));
}

/* A datagram was read. */
static __always_inline void datagram_received(struct worker *w, __u64 sk, __u64 now)
{
	struct datagram *of_sk = &w->datagrams[0];

	if (!knows_quic())
		return;
	/* Other sockets, as those of resolvers, make room: nginx opens streams right after a read.
	 */
	for (__u32 i = 0; i < DATAGRAM_SOCKETS_MAX; i++) {
		if (w->datagrams[i].sk == sk) {
			of_sk = &w->datagrams[i];
			break;
		}
		if (w->datagrams[i].at_ns < of_sk->at_ns)
			of_sk = &w->datagrams[i];
	}
	of_sk->sk = sk;
	of_sk->at_ns = now;
	opening_received(w, now);
}

/* The context of a walk through the frames of a datagram. */
struct quic_frames {
	struct worker *w;
	struct ngx_queue_s *last; /* the queue itself: it ends there */
	struct ngx_queue_s *next;
	__u64 now;
};

/* A frame of a response was sent before its request was freed. */
static __always_inline void stream_sent(struct worker *w, __u64 c, bool is_reset, __u64 now)
{
	struct connection *conn = connection_find(w, c);

	if (!conn)
		return;
	if (is_reset)
		conn->is_over = 1;
	else if (conn->response_first_ns || response_begun(conn, (void *)c, 0))
		conn->response_last_ns = now;
	if (!conn->response_first_ns)
		conn->response_first_ns = conn->response_last_ns;
}

static __always_inline bool send_frame(struct quic_frames *frames, __u32 index)
{
	struct worker *w = frames->w;
	struct stream_key key = {.connection = w->quic, .pid = w->pid};
	struct ngx_quic_frame_s *f;
	bool is_reset;
	__u64 *c;

	if (!frames->next || frames->next == frames->last)
		return false;
	f = (void *)frames->next - bpf_core_field_offset(struct ngx_quic_frame_s, queue);
	frames->next = NGX_GET(frames->next, next);
	is_reset = NGX_GET(f, type) == NGX_QUIC_FT_RESET_STREAM;
	if (is_reset)
		key.id = NGX_GET(f, u.offset);
	else if (NGX_GET(f, type) == NGX_QUIC_FT_STREAM)
		key.id = NGX_GET(f, u.stream_id);
	else
		return true;
	if (key.id & NGX_QUIC_STREAM_OTHER)
		return true;
	c = bpf_map_lookup_elem(&quic_streams, &key);
	if (c)
		stream_sent(w, *c, is_reset, frames->now);
	else
		held_sent(w, &key, is_reset, NGX_GET(f, u.fin) & NGX_QUIC_FIN, frames->now);
	return true;
}

DEFINE_WALK(send_frame, struct quic_frames, QUIC_FRAMES_MAX)

/*
 * A datagram was sent, or could not be. On another error than EAGAIN nginx closes the connection
 * and leaves the queue as it is.
 */
static __always_inline void datagram_sent(struct worker *w, int ret, __u64 now)
{
	struct quic_frames frames = {.w = w, .now = now};
	struct ngx_quic_connection_s *qc;
	struct ngx_quic_send_ctx_s *ctx;
	struct ngx_quic_socket_s *qsock;
	struct ngx_connection_s *c = (void *)w->quic;

	if (!knows_quic() || !c)
		return;
	if (ret < 0) {
		if (ret != -EAGAIN)
			w->quic = 0;
		return;
	}
	qsock = NGX_GET(c, udp);
	qc = NGX_GET(qsock, quic);
	if (!qc)
		return;
	ctx = (void *)&qc->send_ctx +
	      NGX_QUIC_SEND_CTX_APPLICATION * bpf_core_type_size(struct ngx_quic_send_ctx_s);
	frames.last = &ctx->sending;
	frames.next = NGX_GET(frames.last, next);
	walk_send_frame(&frames);
}

/*
 * The connection on which nginx is going to send more of the response after it has freed the
 * request; NULL: it is not.
 */
static __always_inline struct connection *response_awaited(struct worker *w,
							   struct connection *conn)
{
	if (!quic_is_probed || !conn->stream.connection || conn->is_over)
		return NULL;
	return connection_find(w, conn->stream.connection);
}

/*
 * ngx_quic_close_connection(c): what was not sent by now is never sent. It is also called for a
 * datagram that is not QUIC, for which nginx makes a connection, too.
 */
static __always_inline void quic_closed(struct worker *w, __u64 c)
{
	connection_forget(w, c);
	if (w->quic == c)
		w->quic = 0;
	held_release(w, c);
}

#endif
