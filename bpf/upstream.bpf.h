/* SPDX-License-Identifier: GPL-2.0-only */
/* Life of an upstream attempt: connect, request out, response in, on a new or a kept socket. */
#ifndef NGX_BPF_UPSTREAM_BPF_H
#define NGX_BPF_UPSTREAM_BPF_H

#include "attempt.bpf.h"
#include "outcome.bpf.h"

enum {
	ALERT_BYTES_MAX = 128, /* of a record of TLS, in any cipher */
	AT_ONCE_NS = 100000,   /* reads that follow each other so soon are of one ngx_ssl_recv() */
};

/*
 * The request that an upstream connection is being opened for. c->data is set only after the
 * connect, but c->log is the client connection's since ngx_get_connection().
 */
static __always_inline struct ngx_http_request_s *request_of_log(__u64 c)
{
	struct ngx_http_log_ctx_s *ctx;
	struct ngx_log_s *log;

	log = NGX_GET((struct ngx_connection_s *)c, log);
	ctx = NGX_GET(log, data);
	return NGX_GET(ctx, current_request);
}

/*
 * Whether it is the connection that the request's upstream module has asked for. What a module
 * opens for itself (a cosocket of lua, a fetch of njs) has the same log, and is none of it:
 * ngx_event_connect_peer() notes the connection before it connects.
 */
static __always_inline bool is_peer(struct ngx_http_request_s *r, __u64 c)
{
	struct ngx_http_upstream_s *u = NGX_GET(r, upstream);

	return u && (__u64)NGX_GET(u, peer.connection) == c;
}

/* The connect begins; nginx has registered the connection with epoll before. */
static __always_inline void upstream_connecting(struct worker *w, struct socket_state *s, __u64 now)
{
	struct ngx_http_request_s *r = request_of_log(s->connection);
	struct attempt_times *a;

	s->phase = UPSTREAM_IDLE;
	s->connect_ns = now;
	s->client = 0;
	learn_plain_recv(w, (void *)s->connection);
	a = is_peer(r, s->connection) ? upstream_join(w, s, r) : NULL;
	if (a)
		a->connect_ns = now;
}

/*
 * Whether the connection was kept from a request before: nginx counts since 1.15.3. Else it is new
 * when its connect was seen, and kept when it has served under our eyes, or when it is TCP.
 */
static __always_inline void upstream_reuse(struct socket_state *s, struct attempt_times *a,
					   struct ngx_connection_s *c)
{
	__u64 requests = s->served ? 0 : NGX_GET(c, requests);

	if (requests > 1 || s->served)
		a->flags |= ATTEMPT_REUSED;
	else if (requests == 1 || s->connect_ns)
		a->flags |= ATTEMPT_NEW;
	else if (!s->is_unix)
		a->flags |= ATTEMPT_REUSED;
	s->served = 1;
}

/* The request that an upstream connection works for, once it is connected. */
static __always_inline struct ngx_http_request_s *request_of(struct socket_state *s)
{
	return NGX_GET((struct ngx_connection_s *)s->connection, data);
}

/*
 * Whether the request goes out as HTTP/2 (grpc; proxy since 1.29.4): then its first buffer begins
 * with the preface of a connection, which is skipped on a kept one
 * (ngx_http_grpc_create_request(), ngx_http_grpc_body_output_filter()).
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

/* The same, of what an upstream connection works for. */
static __always_inline __u32 upstream_bits_of(struct socket_state *s)
{
	return upstream_bits(NGX_GET(request_of(s), upstream));
}

/* The first bytes of a request on this socket, or more after bytes of a response. */
static __always_inline struct attempt_times *upstream_request_out(struct worker *w,
								  struct socket_state *s, __u64 now)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct ngx_http_request_s *r = request_of(s);
	struct attempt_times *a;

	s->phase = UPSTREAM_SENDING;
	a = upstream_join(w, s, r);
	if (!a || a->request_first_ns)
		return a;
	if (!s->served)
		s->is_http2 = is_http2(r);
	if (s->is_http2)
		a->flags |= ATTEMPT_HTTP2;
	upstream_reuse(s, a, c);
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

/* Bytes of the TLS handshake. On a unix socket there was no connect that joined it with an attempt.
 */
static __always_inline void upstream_handshake(struct worker *w, struct socket_state *s)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct attempt_times *a;

	a = s->client ? upstream_attempt(w, s) : upstream_join(w, s, NGX_GET(c, data));
	if (!a)
		return;
	a->handshake_first_ns = s->handshake.first_ns;
	a->handshake_last_ns = s->handshake.last_ns;
}

/* What nginx keeps of the attempt. */
static __always_inline struct ngx_http_upstream_state_t *state_of(struct attempt_times *a,
								  struct ngx_http_request_s *r)
{
	struct ngx_array_t *states = NGX_GET(r, upstream_states);

	return NGX_GET(states, elts) + NGX_GET(states, size) * a->index;
}

/*
 * Whether nginx has had a byte of the response. Over TLS what is read may be session tickets, which
 * come behind the handshake, long before the response; before 1.11.4 nginx did not count. HTTP/2
 * has frames of its own before the header, which nginx times when it is complete.
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
 * Bytes of the response that nginx has had, in plain. What it reads into a pipe it counts in there,
 * and adds to the state in ngx_http_upstream_finalize_request(), in this way.
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
 * Bytes read over TLS are the response's when nginx has more of it behind them, as it has not
 * behind the alert that ends the connection: of the last ones draft_attempt() tells. But nginx may
 * have left more of it in OpenSSL's buffer, for as long as it likes, and then nothing tells an
 * alert from it; reads at once are as good as one.
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

/* A send failed. */
static __always_inline void upstream_unsent(struct worker *w, struct socket_state *s)
{
	struct attempt_times *a = upstream_attempt(w, s);

	if (a)
		a->flags |= ATTEMPT_ERROR;
}

/* What bytes that are sent to an upstream are to its attempt. */
enum sent_bytes {
	SENT_REQUEST,
	SENT_CONTROL, /* no part of the request, which was sent before */
	SENT_MORE,    /* more after the response has begun: a tunnel, or it came early */
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

/* The request that the socket's attempt is of. ngx_free_connection() has cleared c->data by its
 * close. */
static __always_inline struct ngx_http_request_s *request_of_attempt(struct worker *w,
								     struct socket_state *s)
{
	struct connection *conn;

	if (s->subrequest)
		return (struct ngx_http_request_s *)s->subrequest;
	conn = connection_find(w, s->client);
	return conn ? (struct ngx_http_request_s *)conn->request : NULL;
}

/* The connection fails or is closed: how far its request has come, before a next one forgets it. */
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
 * nginx closes the socket. On a connection of TLS that has counted nothing, what was sent is the
 * alert that closes it, after a certificate that nginx refused.
 */
static __always_inline void upstream_closing(struct worker *w, struct socket_state *s)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct attempt_times *a = upstream_attempt(w, s);

	if (!a || !a->request_first_ns || a->connection != s->connection)
		return;
	/* A timer of the request may run out unheeded once there is a response; not a tunnel's. */
	upstream_look(a, c, s->phase == UPSTREAM_SENDING || a->flags & ATTEMPT_TUNNEL);
	/* After a response there is no next attempt, and this one is looked at with its request. */
	if (a->response_first_ns && !(a->flags & ATTEMPT_HTTP2))
		return;
	upstream_settle(w, a, s);
	if (a->flags & ATTEMPT_TLS && !NGX_GET(c, sent)) {
		a->request_first_ns = 0;
		a->request_last_ns = 0;
	}
}

/*
 * Whether what is read has come through a tunnel, where it is no response any more. Asked until the
 * response's header has been sent on.
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

static __always_inline void upstream_received(struct worker *w, struct socket_state *s, int ret,
					      __u64 now)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;
	struct attempt_times *a;

	if (ret > 0 && is_handshake(w, &s->handshake, c, now))
		return upstream_handshake(w, s);
	/* A kept connection that the upstream closes while no one uses it: not of an attempt. */
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
	if (!is_answered(a, s))
		a->response_first_ns = now;
	if (a->flags & ATTEMPT_TLS)
		upstream_tls_received(a, s, ret, now);
	else
		a->response_last_ns = now;
}

#endif
