/* SPDX-License-Identifier: GPL-2.0-only */
/* An upstream attempt: connect, request, response, on a new or a kept connection. */
#ifndef NGX_BPF_UPSTREAM_BPF_H
#define NGX_BPF_UPSTREAM_BPF_H

#include "attempt.bpf.h"
#include "outcome.bpf.h"
#include "wait.bpf.h"

enum {
	ALERT_BYTES_MAX = 128, /* of a TLS record with an alert, in any cipher */
	AT_ONCE_NS = 100000,   /* reads this close to each other belong to one ngx_ssl_recv() */
};

/*
 * The request for which an upstream connection is opened. c->data is set after the connect only,
 * but c->log is the client connection's since ngx_get_connection().
 */
static __always_inline struct ngx_http_request_s *request_of_log(struct ngx_log_s *log)
{
	struct ngx_http_log_ctx_s *ctx = NGX_GET(log, data);

	return NGX_GET(ctx, current_request);
}

/*
 * Whether this is the connection of the request's upstream: ngx_event_connect_peer() stores it
 * before it connects. A connection that a module opens for itself (a cosocket of lua, a fetch of
 * njs) has the same log.
 */
static __always_inline bool is_peer(struct ngx_http_request_s *r, __u64 c)
{
	struct ngx_http_upstream_s *u = NGX_GET(r, upstream);

	return u && (__u64)NGX_GET(u, peer.connection) == c;
}

/* A connect begins. */
static __always_inline void upstream_connecting(struct worker *w, struct socket_state *s, __u64 now)
{
	struct ngx_http_request_s *r;
	struct attempt_times *a;

	connection_copy(w, (void *)s->connection);
	r = request_of_log(OF_PEER(w, log));
	s->phase = UPSTREAM_IDLE;
	s->connect_ns = now;
	s->client = 0;
	learn_plain_recv(w, (void *)s->connection);
	a = is_peer(r, s->connection) ? upstream_join(w, s, r) : NULL;
	if (!a)
		return;
	if (w->answer_ns && !a->index && !s->subrequest)
		name_resolved(w, s->client, r, now);
	a->connect_ns = now;
}

/*
 * Whether the connection was kept from an earlier request. nginx counts its requests since 1.15.3.
 * Otherwise it is new if its connect was seen, and kept if a request was seen on it. A TCP
 * connection without either is kept, too: its connect would have been seen.
 */
static __always_inline void upstream_reuse(struct socket_state *s, struct attempt_times *a)
{
	if (a->requests > 1 || s->served) {
		a->flags |= ATTEMPT_REUSED;
		a->kept_ns = s->last_ns;
	} else if (a->requests == 1 || s->connect_ns) {
		a->flags |= ATTEMPT_NEW;
		a->requests = 1; /* the attempt began with the connect, before nginx counted */
	} else if (!s->is_unix) {
		a->flags |= ATTEMPT_REUSED;
	}
	s->served = 1;
}

/* The request that a connected upstream connection works for. */
static __always_inline struct ngx_http_request_s *request_of(struct socket_state *s)
{
	return NGX_GET((struct ngx_connection_s *)s->connection, data);
}

/*
 * Whether the request is sent as HTTP/2 (grpc; proxy since 1.29.4). Then its first buffer begins
 * with the preface of a connection, which nginx skips on a kept one:
 * ngx_http_grpc_create_request(), ngx_http_grpc_body_output_filter().
 */
static __always_inline bool is_http2(struct ngx_http_request_s *r)
{
	struct ngx_http_upstream_s *u = NGX_GET(r, upstream);
	struct ngx_chain_s *cl = NGX_GET(u, request_bufs);
	struct ngx_buf_s *b = NGX_GET(cl, buf);
	char text[8] = {};

	bpf_probe_read_user(text, sizeof(text), NGX_GET(b, start));
	return !__builtin_memcmp(text, "PRI * HT", sizeof(text));
}

/* The bits of the upstream that a connection works for. */
static __always_inline __u32 upstream_bits_of(struct socket_state *s)
{
	return upstream_bits(NGX_GET(request_of(s), upstream));
}

/* The first bytes of a request are sent on this socket, or more after bytes of a response. */
static __always_inline struct attempt_times *upstream_request_out(struct worker *w,
								  struct socket_state *s, __u64 now)
{
	struct attempt_times *a = upstream_rejoin(w, s);

	s->phase = UPSTREAM_SENDING;
	if (!a || a->request_first_ns)
		return a;
	if (!s->served)
		s->is_http2 = is_http2(OF_PEER(w, data));
	if (s->is_http2)
		a->flags |= ATTEMPT_HTTP2;
	upstream_reuse(s, a);
	if (s->handshake.is_tls)
		a->flags |= ATTEMPT_TLS;
	if (s->handshake.is_unseen)
		a->flags |= ATTEMPT_UNSURE;
	s->handshake.is_over = 1;
	if (!a->connect_ns)
		a->connect_ns = s->connect_ns ? s->connect_ns : now;
	s->connect_ns = 0;
	s->sent = 0;
	s->is_drained = 1;
	a->request_first_ns = now;
	return a;
}

/* Bytes of the TLS handshake. A unix socket was not yet joined with an attempt by its connect. */
static __always_inline void upstream_handshake(struct worker *w, struct socket_state *s)
{
	struct attempt_times *a = s->client ? upstream_attempt(w, s) : upstream_rejoin(w, s);

	if (!a)
		return;
	a->handshake_first_ns = s->handshake.first_ns;
	a->handshake_last_ns = s->handshake.last_ns;
}

/* The state that nginx keeps of the attempt. */
static __always_inline struct ngx_http_upstream_state_t *state_of(struct attempt_times *a,
								  struct ngx_http_request_s *r)
{
	struct ngx_array_t *states = NGX_GET(r, upstream_states);

	return NGX_GET(states, elts) + NGX_GET(states, size) * a->index;
}

/*
 * Whether nginx has read a byte of the response. Over TLS the reads may have been session tickets,
 * which follow the handshake, long before the response. nginx counts the bytes since 1.11.4. In
 * HTTP/2 other frames come before the header; nginx sets header_time when that is complete.
 */
static __always_inline bool is_answered(struct attempt_times *a, struct socket_state *s)
{
	struct ngx_http_upstream_state_t *state;

	if (!a->response_first_ns || !(a->flags & (ATTEMPT_TLS | ATTEMPT_HTTP2)))
		return a->response_first_ns != 0;
	state = state_of(a, request_of(s));
	if (a->flags & ATTEMPT_HTTP2)
		return NGX_GET(state, header_time) != NGX_MSEC_UNSET;
	return NGX_GET_OR(state, bytes_received, 1) != 0;
}

/*
 * Decrypted bytes of the response that nginx has read. Those that it reads into a pipe are counted
 * there, and ngx_http_upstream_finalize_request() adds them to the state in the same way.
 */
static __always_inline __s64 plain_received(struct attempt_times *a, struct socket_state *s)
{
	struct ngx_http_request_s *r = request_of(s);
	struct ngx_http_upstream_s *u = NGX_GET(r, upstream);
	struct ngx_event_pipe_s *p = NGX_GET(u, pipe);
	__s64 bytes = NGX_GET_OR(state_of(a, r), bytes_received, 0);
	__s64 piped = NGX_GET(p, read_length);

	if (piped && (__u64)NGX_GET(p, upstream) == s->connection)
		bytes += piped - NGX_GET(p, preread_size);
	return bytes;
}

/*
 * Bytes read over TLS belong to the response if nginx has counted more bytes of it afterwards. It
 * does not for the alert that ends the connection. settle_response() decides it for the last read.
 * But nginx may count a part of the response only after it has read the alert: it has left that
 * part in OpenSSL's buffer, or both were read in one ngx_ssl_recv(). So a read of no more bytes
 * than an alert has is sure only if nginx had taken everything before it, or if it follows another
 * read so closely that it makes no difference.
 */
static __always_inline void upstream_tls_received(struct attempt_times *a, struct socket_state *s,
						  int ret, __u64 now)
{
	bool is_sure = s->is_drained || ret > ALERT_BYTES_MAX || now - a->unsure_ns < AT_ONCE_NS;
	__s64 received = plain_received(a, s);

	if (received > a->unsure_received)
		a->response_last_ns = a->unsure_ns;
	a->unsure_received = received;
	a->unsure_ns = is_sure ? now : 0;
	s->is_drained = 0;
}

/* A send has failed. */
static __always_inline void upstream_unsent(struct worker *w, struct socket_state *s)
{
	struct attempt_times *a = upstream_attempt(w, s);

	if (a)
		a->flags |= ATTEMPT_ERROR;
}

/* What bytes that are sent to an upstream are part of. */
enum sent_bytes {
	SENT_REQUEST,
	SENT_CONTROL, /* frames of HTTP/2's connection, or an alert, after the request */
	SENT_MORE,    /* a tunnel, or the rest of a request that was answered early */
	SENT_UNSURE,  /* the same over TLS, where it may be an alert */
};

/*
 * Over HTTP/2 the connection's own frames (SETTINGS, PING) follow the request. Over TLS so does the
 * alert of ngx_http_upstream_finalize_request(), which may come much later.
 */
static __always_inline enum sent_bytes classify_sent(struct attempt_times *a,
						     struct socket_state *s)
{
	if ((s->is_http2 || s->handshake.is_tls) && upstream_bits_of(s) & U_BODY_SENT)
		return SENT_CONTROL;
	if (!is_answered(a, s))
		return SENT_REQUEST;
	return a->flags & ATTEMPT_TLS ? SENT_UNSURE : SENT_MORE;
}

static __always_inline void upstream_sent(struct worker *w, struct socket_state *s, __u64 now)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct attempt_times *a = NULL;
	__u64 sent;

	if (is_handshake(w, &s->handshake, c, now))
		return upstream_handshake(w, s);
	/* Over HTTP/2 the request before may have sent something after its response. */
	if (s->phase == UPSTREAM_SENDING)
		a = upstream_attempt(w, s);
	if (!a)
		a = upstream_request_out(w, s, now);
	if (!a)
		return;
	switch (classify_sent(a, s)) {
	case SENT_REQUEST:
		a->request_last_ns = now;
		break;
	case SENT_CONTROL:
		break;
	case SENT_MORE:
		a->flags |= ATTEMPT_MORE;
		break;
	case SENT_UNSURE:
		/* An alert is the last thing that nginx sends: then c->sent does not grow. */
		sent = NGX_GET(c, sent);
		if (s->sent && sent > s->sent)
			a->flags |= ATTEMPT_MORE;
		s->sent = sent;
		break;
	}
}

/* The request of the socket's attempt: ngx_free_connection() has cleared c->data before it closes.
 */
static __always_inline struct ngx_http_request_s *request_of_attempt(struct worker *w,
								     struct socket_state *s)
{
	struct connection *conn;

	if (s->subrequest)
		return (struct ngx_http_request_s *)s->subrequest;
	conn = connection_find(w, s->client);
	return conn ? (struct ngx_http_request_s *)conn->request : NULL;
}

/* Notes how much of the request was sent when its connection fails or is closed. */
static __always_inline void upstream_settle(struct worker *w, struct attempt_times *a,
					    struct socket_state *s)
{
	struct ngx_http_request_s *r = request_of_attempt(w, s);
	struct ngx_http_upstream_s *u;

	if (!is_request(r))
		return;
	u = NGX_GET(r, upstream);
	a->flags |= whole_or_part(upstream_bits(u));
	if (a->flags & ATTEMPT_HTTP2 && is_cancelled(u))
		a->flags |= ATTEMPT_CANCELLED;
}

/*
 * nginx closes the socket. If it has counted no byte that it sent over TLS, the bytes that were
 * sent are an alert: it has refused the certificate.
 */
static __always_inline void upstream_closing(struct worker *w, struct socket_state *s)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct attempt_times *a = upstream_attempt(w, s);

	if (!a || !a->request_first_ns || a->connection != s->connection)
		return;
	/* Once a response has begun, nginx ignores the timer of sends, except in a tunnel. */
	upstream_look(a, c, s->phase == UPSTREAM_SENDING || a->flags & ATTEMPT_TUNNEL);
	if (s->stall.since_ns && (s->stall.is_sure || a->flags & ATTEMPT_STUCK))
		a->stall_ns += bpf_ktime_get_ns() - s->stall.since_ns;
	/* After a response there is no next attempt: the end of the request shows the rest. */
	if (a->response_first_ns && !(a->flags & ATTEMPT_HTTP2))
		return;
	upstream_settle(w, a, s);
	if (a->flags & ATTEMPT_TLS && !NGX_GET(c, sent)) {
		a->request_first_ns = 0;
		a->request_last_ns = 0;
	}
}

/*
 * Whether the bytes that are read come through a tunnel, and are not part of the response. It is
 * known when nginx has sent the response's header to the client.
 */
static __always_inline bool is_tunnelled(struct attempt_times *a, struct socket_state *s)
{
	__u32 bits;

	if (a->flags & (ATTEMPT_TUNNEL | ATTEMPT_HEADER_SENT))
		return a->flags & ATTEMPT_TUNNEL;
	bits = upstream_bits_of(s);
	if (bits & U_UPGRADE)
		a->flags |= ATTEMPT_TUNNEL;
	else if (bits & U_HEADER_SENT)
		a->flags |= ATTEMPT_HEADER_SENT;
	return bits & U_UPGRADE;
}

/*
 * Whether nginx has not parsed the whole header of the response that has begun: it sets header_time
 * then. Once it has sent the header on, as it does mostly before the next read, nothing is read.
 */
static __always_inline bool is_header_open(struct attempt_times *a, struct socket_state *s)
{
	if (a->flags & (ATTEMPT_HEADER | ATTEMPT_HEADER_SENT))
		return false;
	if (NGX_GET(state_of(a, request_of(s)), header_time) == NGX_MSEC_UNSET)
		return true;
	a->flags |= ATTEMPT_HEADER;
	return false;
}

static __always_inline void upstream_received(struct worker *w, struct socket_state *s,
					      struct sock *sk, int ret, __u64 now)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct attempt_times *a;

	if (ret > 0 && is_handshake(w, &s->handshake, c, now))
		return upstream_handshake(w, s);
	/* At an end or an error the phase stays: it may be that of a kept connection without
	 * attempt. */
	if (ret > 0)
		s->phase = UPSTREAM_RECEIVING;
	a = upstream_attempt(w, s);
	if (!a)
		return;
	if (ret <= 0) {
		a->flags |= ret ? ATTEMPT_ERROR : ATTEMPT_EOF;
		if (a->request_first_ns && !a->response_first_ns)
			upstream_settle(w, a, s);
		return;
	}
	if (a->response_first_ns && is_tunnelled(a, s))
		return;
	if (!is_answered(a, s)) {
		a->response_first_ns = a->header_ns = now;
		a->read_wait_ns = lain_ns(sk, a->request_first_ns, now);
		turn_waited(a->read_wait_ns, now);
	} else if (is_header_open(a, s)) {
		a->header_ns = now;
	}
	if (a->flags & ATTEMPT_TLS)
		upstream_tls_received(a, s, ret, now);
	else
		a->response_last_ns = now;
}

#endif
