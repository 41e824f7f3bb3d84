/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The lists of a worker's HTTP/3 streams whose header or body is incomplete. Each datagram checks
 * all of them. A connection has its streams in one of several lists (a row), so that one client
 * neither makes datagrams expensive nor takes the room of all others.
 */
#ifndef NGX_BPF_OPENING_BPF_H
#define NGX_BPF_OPENING_BPF_H

#include "quic.bpf.h"
#include "walk.bpf.h"
#include "watch.bpf.h"

/* The time of what is incomplete: the last datagram that found it so. */
static __always_inline void stage_settle(struct connection *conn, __u64 at_ns)
{
	if (conn->stage == STAGE_BEGIN)
		conn->request_first_ns = at_ns;
	else if (conn->stage == STAGE_HEADER)
		conn->header_ns = at_ns;
	else if (conn->stage == STAGE_BODY)
		conn->body_ns = at_ns;
	conn->stage = STAGE_NONE;
}

/*
 * A stream leaves the list too early. The end of its header is not going to be seen, so that its
 * begin is not reported either. If the stream has ended, its ngx_connection_t may be another one's.
 */
static __always_inline void opening_evict(struct worker *w, const struct watch *watch)
{
	struct connection *conn = watch_stream(w, watch);

	if (!conn)
		return;
	conn->stage = STAGE_NONE;
	conn->request_first_ns = 0;
	conn->is_body_unsure = 1;
}

/*
 * A stream leaves the list: its header is complete, and so is its body, or none is known of. A body
 * without a length may still come if nginx has not begun to read it.
 */
static __always_inline void opening_ends(struct connection *conn, struct ngx_http_request_s *r)
{
	struct ngx_http_request_body_t *rb = NGX_GET_OR(r, request_body, NULL);

	if (!rb)
		conn->is_body_unsure = 1;
}

/*
 * What the stream shows. The datagram that was just read may complete it. Returns false when it is
 * complete.
 */
static __always_inline bool opening_look(struct worker *w, struct watch *watch)
{
	struct ngx_connection_s *c = (void *)watch->connection;
	struct connection *conn = watch_stream(w, watch);
	struct ngx_http_request_s *r;

	if (!conn)
		return false;
	stage_settle(conn, w->opening_ns);
	/* nginx has closed the stream: it sets c->fd to -1. */
	if (!quic_stream_of(c) || NGX_GET(c, fd) == (ngx_socket_t)-1)
		return false;
	r = NGX_GET(c, data);
	if (!is_request(r)) {
		conn->stage = STAGE_BEGIN;
		watch->word = (__u64)&c->data;
		watch->value = (__u64)r;
	} else if (!NGX_GET(r, write_event_handler)) {
		conn->stage = STAGE_HEADER;
		watch->word = (__u64)&r->write_event_handler;
		watch->value = 0;
	} else if (body_is_open(r)) {
		conn->stage = STAGE_BODY;
		watch_body(watch, r);
	} else {
		opening_ends(conn, r);
		return false;
	}
	return true;
}

/* The context of a walk through a row. */
struct row {
	struct worker *w;
	__u64 row;
	__u64 connection; /* to search for */
};

/* The row of a stream's connection: these bits of the product depend on many bits of the address.
 */
static __always_inline __u32 row_of(struct connection *stream)
{
	return (stream->stream.connection * 0x9e3779b97f4a7c15ULL >> 32) & (OPENING_ROWS - 1);
}

static __always_inline struct watch *opening_at(struct worker *w, __u32 row, __u64 index)
{
	__u64 n = row * OPENING_OF_ROW + (index & (OPENING_OF_ROW - 1));

	barrier_var(n);
	return &w->opening[n & (OPENING_MAX - 1)];
}

static __always_inline __u8 *opening_len(struct worker *w, __u32 row)
{
	barrier_var(row);
	return &w->opening_len[row & (OPENING_ROWS - 1)];
}

/* Keeps a stream that is incomplete. */
static __always_inline bool follow_opening(struct row *walk, __u32 index)
{
	struct worker *w = walk->w;
	struct watch *watch = opening_at(w, walk->row, index);

	if (index >= *opening_len(w, walk->row))
		return false;
	if (!watch->connection || (!is_unchanged(watch) && !opening_look(w, watch)))
		return true;
	if (w->opening_kept != index)
		*opening_at(w, walk->row, w->opening_kept) = *watch;
	w->opening_kept++;
	return true;
}

DEFINE_WALK(follow_opening, struct row, OPENING_OF_ROW)

static __always_inline void opening_check(struct worker *w, __u32 row)
{
	struct row walk = {.w = w, .row = row};

	w->opening_kept = 0;
	walk_follow_opening(&walk);
	*opening_len(w, row) = w->opening_kept;
}

/* A datagram was read: it may complete any of the streams. */
static __always_inline void opening_received(struct worker *w, __u64 now)
{
	for (__u32 row = 0; row < OPENING_ROWS; row++) {
		if (*opening_len(w, row))
			opening_check(w, row);
	}
	w->opening_ns = now;
}

/*
 * Adds a stream. When its row is full, those that are complete by now make room, as nginx reads a
 * stream as soon as it is opened; if all are incomplete, one after the other does.
 */
static __always_inline void opening_add(struct worker *w, struct connection *conn, __u64 c)
{
	__u32 row = row_of(conn);
	__u8 *len = opening_len(w, row);
	__u64 n;

	if (*len >= OPENING_OF_ROW)
		opening_check(w, row);
	n = *len;
	if (n >= OPENING_OF_ROW) {
		n = w->opening_evicted++;
		opening_evict(w, opening_at(w, row, n));
	} else {
		*len = n + 1;
	}
	watch_begin(opening_at(w, row, n), conn, c);
}

static __always_inline bool free_opening(struct row *walk, __u32 index)
{
	struct watch *watch = opening_at(walk->w, walk->row, index);

	if (index >= *opening_len(walk->w, walk->row))
		return false;
	if (watch->connection == walk->connection)
		watch->connection = 0;
	return true;
}

DEFINE_WALK(free_opening, struct row, OPENING_OF_ROW)

/*
 * A stream ends. It has to leave the list if a datagram has found it incomplete: nginx's memory is
 * free then. Otherwise the next datagram removes it.
 */
static __always_inline void opening_end(struct worker *w, struct connection *conn, __u64 c)
{
	struct row walk = {.w = w, .row = row_of(conn), .connection = c};

	if (!conn->stage)
		return;
	stage_settle(conn, w->opening_ns);
	walk_free_opening(&walk);
}

#endif
