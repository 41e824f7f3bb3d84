/* SPDX-License-Identifier: GPL-2.0-only */
/* Bytes on a client's socket: they are the TLS handshake's, its one request's, or its streams'. */
#ifndef NGX_BPF_CLIENT_BPF_H
#define NGX_BPF_CLIENT_BPF_H

#include "body.bpf.h"
#include "round.bpf.h"

/*
 * Bytes were read from a client. While there is no request, c->data is the ngx_http_connection_t,
 * and what is read becomes the next request: nginx creates it as soon as it has a decrypted byte.
 * While the header is incomplete the request has no write_event_handler: ngx_http_process_request()
 * sets the first one.
 */
static __always_inline void client_received(struct worker *w, struct connection *conn,
					    struct ngx_connection_s *c, struct sock *sk, __u64 now)
{
	struct ngx_http_request_s *r;

	if (is_handshake(w, &conn->handshake, c, now)) {
		conn->request_first_ns = 0; /* what was read before was a PROXY protocol header */
		return;
	}
	r = NGX_GET(c, data);
	if (conn->is_multiplexed) {
		streams_received(w, conn, c, (void *)r, now);
		conn->read_wait_ns = read_wait_ns(conn, sk, now);
	} else if ((__u64)r != conn->http_connection && is_request(r)) {
		if (!NGX_GET(r, write_event_handler)) {
			conn->header_ns = now;
			conn->read_wait_ns += read_wait_ns(conn, sk, now);
		} else if (body_is_open(r)) {
			conn->body_ns = now;
		}
	} else if (!conn->previous_ended_ns && is_multiplexed(c, (void *)r)) {
		streams_received(w, conn, c, (void *)r, now);
		conn->read_wait_ns = read_wait_ns(conn, sk, now);
	} else {
		conn->request_first_ns = now;
		conn->read_wait_ns = read_wait_ns(conn, sk, now);
		conn->flags = 0;
	}
	conn->last_read_ns = now;
}

/* Bytes were sent to a client, or could not be: `ret` is what send() returned. */
static __always_inline void client_sent(struct worker *w, struct connection *conn,
					struct ngx_connection_s *c, int ret, __u64 now)
{
	struct unsure *unsure = &conn->unsure;
	__u64 sent;

	if (conn->is_multiplexed)
		return streams_sent(w, conn, c, ret, now);
	if (ret < 0 || is_handshake(w, &conn->handshake, c, now))
		return;
	/* How many bytes of its own nginx sends is not known over TLS. */
	sent = conn->handshake.is_tls ? 0 : ret;
	if (is_left_out(conn) || (!conn->response_first_ns && !response_begun(conn, c, sent)))
		return;
	if (!conn->handshake.is_tls) {
		if (!conn->response_first_ns)
			conn->response_first_ns = now;
		conn->response_last_ns = now;
		return;
	}
	sent = NGX_GET(c, sent);
	response_settle(conn, sent);
	if (!unsure->last_ns)
		unsure->first_ns = now;
	unsure->last_ns = now;
	unsure->sent = sent;
}

#endif
