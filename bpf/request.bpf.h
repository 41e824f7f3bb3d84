/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The end of a request: it is validated, its entry is found, its record is drafted and submitted,
 * and what was kept of it is forgotten.
 */
#ifndef NGX_BPF_REQUEST_BPF_H
#define NGX_BPF_REQUEST_BPF_H

#include "draft.bpf.h"
#include "draft_texts.bpf.h"
#include "draft_upstreams.bpf.h"
#include "close.bpf.h"
#include "ending.bpf.h"
#include "place.bpf.h"
#include "round.bpf.h"
#include "scratch.bpf.h"
#include "tcp.bpf.h"

/* What ngx_http_free_request() was called with. */
enum validity {
	REQUEST_NONE, /* no request of a client: it is not counted */
	REQUEST_BAD,  /* a request, but not all of it can be read */
	REQUEST_GOOD,
};

/* 0.9, 1.0 to 1.99, 2, 3: what ngx_http_parse_request_line() and nginx itself set. */
static __always_inline bool is_http_version(__u32 version)
{
	return version == NGX_HTTP_VERSION_9 ||
	       (version >= NGX_HTTP_VERSION_10 && version < NGX_HTTP_VERSION_10 + 100) ||
	       version == NGX_HTTP_VERSION_20 || version == NGX_HTTP_VERSION_30;
}

/*
 * Whether nginx made this request within a TLS handshake, to have the variables of
 * `ssl_certificate` (ngx_http_ssl_certificate()). The connection has had no request then. It is
 * asked only where nothing is known that came after the handshake.
 */
static __always_inline bool is_of_handshake(struct connection *conn, struct ngx_connection_s *c,
					    bool is_http1)
{
	if (!is_http1 || !bpf_core_field_exists(c->ssl))
		return false;
	if (conn && (conn->request_first_ns || conn->previous_ended_ns))
		return false;
	return !NGX_GET(c, requests);
}

/* Bytes of a request that are copied: up to the last member that is read. */
static __always_inline __u32 request_bytes(void)
{
	__u32 bytes = bpf_core_type_size(struct ngx_http_request_s);
	__u32 end = URI_CHANGES_WORD + sizeof(__u32);

	return uri_changes_at && end > bytes && end <= REQUEST_BYTES_MAX ? end : bytes;
}

/* Copies the request, and checks the members that can have a few values only. */
static __always_inline enum validity request_valid(struct scratch *s, struct ngx_http_request_s *r)
{
	if (bpf_probe_read_user(s->request, request_bytes(), r))
		return is_request(r) ? REQUEST_BAD : REQUEST_NONE;
	/* ngx_http_free_request() itself returns at once when the pool is gone. */
	if (OF_REQUEST(s, signature) != NGX_HTTP_MODULE || !OF_REQUEST(s, pool))
		return REQUEST_NONE;
	/* Otherwise the layout is not this binary's. */
	return is_http_version(http_version(s)) && OF_REQUEST(s, main) == r ? REQUEST_GOOD
									    : REQUEST_BAD;
}

/*
 * A new entry for a request whose connection or stream has none. Where nothing was seen of an
 * HTTP/1 connection it is adopted. A stream of HTTP/2 or HTTP/3 has an ngx_connection_t of its own,
 * which ends with it, so that there is nothing to adopt.
 */
static __always_inline struct connection *request_entry(struct worker *w, struct scratch *s,
							struct ngx_http_request_s *r,
							struct ngx_connection_s *c, bool is_http1)
{
	struct connection *conn = stream_new(w, r, false);

	if (conn)
		return conn;
	s->held.draft.flags = REQUEST_UNTRACED;
	return is_http1 ? connection_adopt(w, (__u64)c) : NULL;
}

/* A stream ends whose header or body may be incomplete: reads do not check it any more. */
static __always_inline void request_unfollow(struct worker *w, struct connection *conn,
					     struct ngx_connection_s *c)
{
	if (conn->is_followed)
		body_end(w, conn, (__u64)c);
	if (knows_quic())
		opening_end(w, conn, (__u64)c);
}

/*
 * Drafts the record and submits it, unless a filter rules it out. `conn` is NULL for a stream of
 * which nothing is known. Returns false when a member could not be read.
 */
static __always_inline bool request_report(struct worker *w, struct scratch *s,
					   struct ngx_http_request_s *r, long rc,
					   struct ngx_connection_s *c, struct connection *conn)
{
	struct request_record *d = &s->held.draft;
	struct connection *traced = d->flags & REQUEST_UNTRACED ? NULL : conn;
	struct connection *parent;

	if (conn ? is_left_out(conn) : !is_of_sample()) {
		request_filtered();
		return true;
	}
	if (!draft_numbers(s, rc, (__u64)c))
		return false;
	if (traced && d->http_version == NGX_HTTP_VERSION_20)
		stream_ended(w, traced, d->bytes_sent);
	if (traced)
		draft_connection(s, traced);
	if (d->flags & REQUEST_ABANDONED)
		d->response_last_ns = 0; /* more may have followed */
	else
		draft_ending(w, s, traced);
	if (!has_status(d) || !has_duration(d)) {
		request_filtered();
		return true;
	}
	draft_tcp(s, traced);
	draft_location(w, s);
	if (d->flags & REQUEST_UPSTREAM) {
		draft_group(w, s);
		draft_upstreams(s, traced);
	}
	draft_texts(w, s);
	if (conn && conn->subrequests_seen)
		draft_subrequests(w, s, conn);
	d->kind = RECORD_REQUEST;
	d->size = sizeof(*d) + s->held.tail_len;
	parent = conn && !(d->flags & REQUEST_ABANDONED) ? response_awaited(w, conn) : NULL;
	if (parent)
		response_hold(w, s, conn, parent);
	else
		request_submit(&s->held);
	return true;
}

/*
 * Forgets the request: its subrequests, and its times. The entry of an HTTP/1 connection goes on
 * with the next request (`is_kept`). That of a stream ends with it, since another stream may soon
 * have the same ngx_connection_t, and so does one that can't be trusted. This is the only place
 * that forgets a request while its process lives. `conn` may be NULL.
 */
static __always_inline void request_retire(struct worker *w, struct connection *conn,
					   struct ngx_connection_s *c, bool is_kept, __u64 now)
{
	if (!conn)
		return;
	request_closed(w, conn, now);
	subrequests_forget(w, conn);
	if (is_kept && !conn->stream.connection)
		connection_next_request(w, conn, c, now);
	else
		stream_forget(w, conn, (__u64)c);
}

/*
 * Where there is a sample, the entry that the request has, by its head. It may show that the sample
 * left out the request when its response began, as it does those of HTTP/1 only: only what leads to
 * its connection is read of such a request.
 */
static __always_inline struct connection *request_sampled(struct worker *w,
							  struct ngx_http_request_s *r)
{
	if (filter_sample < 2 || !request_head(w, r) || !OF_HEAD(w, pool))
		return NULL;
	return connection_find(w, (__u64)OF_HEAD(w, connection));
}

/* Begins the draft of a record. */
static __always_inline void draft_begin(struct worker *w, struct scratch *s, __u64 now)
{
	struct request_record *d = &s->held.draft;

	__builtin_memset(d, 0, sizeof(*d));
	d->ended_ns = now;
	d->pid = w->pid;
	d->container = w->container;
	s->held.tail_len = 0;
}

/* The request that ends is a client's, or may be one: its entry is found, and it is reported. */
static __always_inline void request_handle(struct worker *w, struct scratch *s,
					   struct ngx_http_request_s *r, long rc,
					   struct connection *conn, __u64 now)
{
	enum validity validity = request_valid(s, r);
	struct ngx_connection_s *c;
	bool is_good, is_http1;

	if (validity == REQUEST_NONE)
		return;
	c = OF_REQUEST(s, connection);
	if (!conn)
		conn = connection_find(w, (__u64)c);
	is_good = validity == REQUEST_GOOD;
	is_http1 = http_version(s) < NGX_HTTP_VERSION_20;
	if (is_good && is_of_handshake(conn, c, is_http1))
		return;
	__sync_fetch_and_add(&counters.seen, 1);
	draft_begin(w, s, now);
	if (is_good && !conn)
		conn = request_entry(w, s, r, c, is_http1);
	if (is_good && !conn && is_http1)
		return request_lost(LOST_INFLIGHT_FULL);
	if (conn && conn->is_early)
		stream_resume(w, conn, r);
	if (conn)
		request_unfollow(w, conn, c);
	is_good = is_good && request_report(w, s, r, rc, c, conn);
	if (!is_good)
		request_lost(LOST_BAD_READ);
	if (conn)
		conn->http_connection = (__u64)OF_REQUEST(s, http_connection);
	request_retire(w, conn, c, is_good && is_http1, now);
}

/* The same where all scratches are taken: no more of it is read than what forgets it. */
static __always_inline void request_unhandled(struct worker *w, struct ngx_http_request_s *r,
					      __u64 now)
{
	struct ngx_connection_s *c;
	struct connection *conn;

	if (!request_head(w, r) || !OF_HEAD(w, pool))
		return;
	__sync_fetch_and_add(&counters.seen, 1);
	request_lost(LOST_INFLIGHT_FULL);
	c = OF_HEAD(w, connection);
	conn = connection_find(w, (__u64)c);
	if (!conn)
		return;
	request_unfollow(w, conn, c);
	request_retire(w, conn, c, !conn->is_stream, now);
}

/*
 * ngx_http_free_request(r, rc) was entered: all of the request is still there, and is about to be
 * logged. `empty_handler` is the address of ngx_http_request_empty_handler(); 0: not known.
 * `probe` is that of the probed instruction.
 */
static __always_inline void request_ended(struct worker *w, struct ngx_http_request_s *r, long rc,
					  __u64 empty_handler, __u64 probe)
{
	struct connection *conn = request_sampled(w, r);
	__u64 now = bpf_ktime_get_ns();
	struct scratch *s;
	__u32 index;

	if (conn && conn->sample == SAMPLE_OUT) {
		__sync_fetch_and_add(&counters.seen, 1);
		request_filtered();
		return request_retire(w, conn, OF_HEAD(w, connection), true, now);
	}
	index = scratch_claim();
	s = bpf_map_lookup_elem(&scratches, &index);
	if (!s)
		return request_unhandled(w, r, now);
	s->empty_handler = empty_handler;
	s->probe = probe;
	request_handle(w, s, r, rc, conn, now);
	scratch_release(s);
}

#endif
