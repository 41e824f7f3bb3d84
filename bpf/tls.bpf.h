/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * TLS: which bytes on a socket are its handshake's. c->recv shows it: it is the function that reads
 * connections without TLS until ngx_ssl_handshake() or ngx_ssl_try_early_data() has succeeded, and
 * ngx_ssl_recv() from then on. While nginx lingers, c->recv is the first one again: hence is_over.
 */
#ifndef NGX_BPF_TLS_BPF_H
#define NGX_BPF_TLS_BPF_H

#include "read.bpf.h"

/* Learns c->recv of connections without TLS, from one that was just accepted or opened. */
static __always_inline void learn_plain_recv(struct worker *w, struct ngx_connection_s *c)
{
	if (w->plain_recv || NGX_GET(c, type) != SOCK_STREAM || NGX_GET_OR(c, ssl, NULL))
		return;
	w->plain_recv = (__u64)NGX_GET(c, recv);
}

/* Whether the bytes that were just read or sent are the handshake's, whose times it notes then. */
static __always_inline bool is_handshake(struct worker *w, struct handshake *h,
					 struct ngx_connection_s *c, __u64 now)
{
	if (h->is_over || !NGX_GET_OR(c, ssl, NULL))
		return false;
	h->is_tls = 1;
	if (!w->plain_recv || (__u64)NGX_GET(c, recv) != w->plain_recv) {
		h->is_over = 1;
		h->is_unseen = !w->plain_recv;
		return false;
	}
	if (!h->first_ns)
		h->first_ns = now;
	h->last_ns = now;
	return true;
}

/*
 * A read of a handshake that is under way has found nothing. It is over if that was the first one
 * after it.
 */
static __always_inline void handshake_look(struct worker *w, struct handshake *h,
					   struct ngx_connection_s *c)
{
	if (w->plain_recv && NGX_GET_OR(c, ssl, NULL) && (__u64)NGX_GET(c, recv) != w->plain_recv)
		h->is_over = 1;
}

/* nginx closes a client's connection: a handshake that is not over has failed. */
static __always_inline void handshake_settle(struct handshake *h)
{
	if (!h->is_tls || h->is_over)
		return;
	h->is_over = 1;
	__sync_fetch_and_add(&counters.failed_handshakes, 1);
}

#endif
