/* SPDX-License-Identifier: GPL-2.0-only */
/* The end of a request: one record is made of nginx's memory and the entry of its connection. */
#ifndef NGX_BPF_REQUEST_BPF_H
#define NGX_BPF_REQUEST_BPF_H

#include "draft.bpf.h"
#include "draft_texts.bpf.h"
#include "draft_upstreams.bpf.h"

/* 0.9, 1.0 to 1.99, 2, 3: what ngx_http_parse_request_line() and nginx itself set. */
static __always_inline bool is_http_version(__u32 version)
{
	return version == NGX_HTTP_VERSION_9 ||
	       (version >= NGX_HTTP_VERSION_10 && version < NGX_HTTP_VERSION_10 + 100) ||
	       version == NGX_HTTP_VERSION_20 || version == NGX_HTTP_VERSION_30;
}

/*
 * Drafts the record and submits it, unless a filter keeps it back. `conn` is NULL for a stream of
 * which nothing is known. False when a member could not be read.
 */
static __always_inline bool request_tell(struct worker *w, struct ngx_http_request_s *r, long rc,
					 struct ngx_connection_s *c, struct connection *conn,
					 bool is_traced)
{
	bool is_awaited = conn && response_is_awaited(w, conn);

	if (!draft_numbers(w, rc, (__u64)c))
		return false;
	if (!is_traced)
		w->held.draft.flags |= REQUEST_UNTRACED;
	if (conn && is_traced) {
		if (w->held.draft.http_version == NGX_HTTP_VERSION_20)
			stream_ended(w, conn, (__u64)r);
		draft_connection(w, conn);
	}
	if (!has_status(&w->held.draft) || !has_duration(&w->held.draft)) {
		__sync_fetch_and_add(&counters.filtered, 1);
		return true;
	}
	if (w->held.draft.flags & REQUEST_UPSTREAM)
		draft_upstreams(w, is_traced ? conn : NULL);
	draft_texts(w);
	if (conn && conn->subrequests_seen)
		draft_subrequests(w, conn);
	if (is_awaited)
		response_hold(w, conn);
	else
		request_submit(&w->held.draft, w->held.tail_len);
	return true;
}

/*
 * A request that the sample left out when its response began, as it does those of HTTP/1 only: no
 * more is read of it than what leads to its connection.
 */
static __always_inline bool request_left_out(struct worker *w, struct ngx_http_request_s *r,
					     __u64 now)
{
	struct ngx_connection_s *c;
	struct connection *conn;

	if (filter_sample < 2 || !request_head(w, r) || !OF_HEAD(w, pool))
		return false;
	c = OF_HEAD(w, connection);
	conn = connection_find(w, (__u64)c);
	if (!conn || conn->sample != SAMPLE_OUT)
		return false;
	__sync_fetch_and_add(&counters.seen, 1);
	__sync_fetch_and_add(&counters.filtered, 1);
	subrequests_forget(w, conn);
	connection_next_request(w, conn, c, now);
	return true;
}

/*
 * Whether the request is none of a client: within a TLS handshake nginx makes one, and frees it, to
 * have the variables of `ssl_certificate` (ngx_http_ssl_certificate()). The connection has had no
 * request then. Asked only where nothing is known that came after the handshake.
 */
static __always_inline bool is_of_handshake(struct worker *w, struct ngx_connection_s *c,
					    __u32 version)
{
	struct connection *conn;

	if (version >= NGX_HTTP_VERSION_20 || !bpf_core_field_exists(c->ssl))
		return false;
	conn = connection_find(w, (__u64)c);
	if (conn && (conn->request_first_ns || conn->previous_ended_ns))
		return false;
	return !NGX_GET(c, requests);
}

/* ngx_http_free_request(r, rc), entered: everything still stands, and is about to be logged. */
static __always_inline void request_ended(struct worker *w, struct ngx_http_request_s *r, long rc)
{
	__u64 now = bpf_ktime_get_ns();
	struct connection *conn = NULL;
	struct ngx_connection_s *c;
	bool failed, is_traced;
	__u32 version;

	if (request_left_out(w, r, now))
		return;
	failed = NGX_COPY(w->request, r) != 0;
	/* ngx_http_free_request() itself returns at once when the pool is gone. */
	if (failed ? !is_request(r)
		   : OF_REQUEST(w, signature) != NGX_HTTP_MODULE || !OF_REQUEST(w, pool))
		return;
	c = OF_REQUEST(w, connection);
	version = http_version(w);
	if (!failed && is_of_handshake(w, c, version))
		return;
	__sync_fetch_and_add(&counters.seen, 1);
	/* Or the layout is not this binary's. */
	if (failed || !is_http_version(version) || OF_REQUEST(w, main) != r)
		goto bad_read;

	conn = connection_of(w, r, c);
	is_traced = conn;
	/* A stream's connection is gone with it: there is nothing to adopt. */
	if (!conn && version < NGX_HTTP_VERSION_20) {
		conn = connection_adopt(w, (__u64)c);
		if (!conn)
			return request_lost(LOST_INFLIGHT_FULL);
	}
	__builtin_memset(&w->held.draft, 0, sizeof(w->held.draft));
	w->held.draft.ended_ns = now;
	w->held.tail_len = 0;
	if (conn ? is_left_out(conn) : !is_of_sample())
		__sync_fetch_and_add(&counters.filtered, 1);
	else if (!request_tell(w, r, rc, c, conn, is_traced))
		goto bad_read;
	if (conn)
		subrequests_forget(w, conn);
	/* A stream's connection ends with it, and another one may soon be at the same place. */
	if (version >= NGX_HTTP_VERSION_20 || (conn && conn->stream.connection)) {
		stream_forget(w, (__u64)c);
	} else if (conn) {
		conn->http_connection = (__u64)OF_REQUEST(w, http_connection);
		connection_next_request(w, conn, c, now);
	}
	return;
bad_read:
	if (conn)
		subrequests_forget(w, conn);
	stream_forget(w, (__u64)c);
	request_lost(LOST_BAD_READ);
}

#endif
