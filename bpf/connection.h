/* SPDX-License-Identifier: GPL-2.0-only */
/* Life of a client's connection: accepted, bytes in, bytes out, one request after the other. */
#ifndef NGX_BPF_CONNECTION_H
#define NGX_BPF_CONNECTION_H

#include "address.h"
#include "read.h"

/* What a new entry begins as. */
static const struct connection new_connection = {};

static __always_inline struct connection *connection_find(struct worker *w, __u64 c)
{
	struct connection_key key = {.connection = c, .pid = w->pid};

	return bpf_map_lookup_elem(&connections, &key);
}

/* What is known of the connection is no longer to be trusted. */
static __always_inline void connection_forget(struct worker *w, __u64 c)
{
	struct connection_key key = {.connection = c, .pid = w->pid};

	bpf_map_delete_elem(&connections, &key);
}

/* NULL when the map is full. */
static __always_inline struct connection *connection_new(struct worker *w, __u64 c)
{
	struct connection_key key = {.connection = c, .pid = w->pid};
	struct connection *conn;

	if (bpf_map_update_elem(&connections, &key, &new_connection, BPF_ANY))
		return NULL;
	conn = bpf_map_lookup_elem(&connections, &key);
	if (conn)
		conn->generation = ++w->generation;
	return conn;
}

/* A connection that nginx had accepted before tracing began. */
static __always_inline struct connection *connection_adopt(struct worker *w, __u64 c)
{
	struct connection *conn = connection_new(w, c);

	if (conn)
		conn->flags = REQUEST_ADOPTED;
	return conn;
}

/* ngx_http_init_connection: whatever the entry of this ngx_connection_t held is over. */
static __always_inline void connection_accepted(struct worker *w, __u64 c, __u64 now)
{
	struct connection *conn = connection_new(w, c);

	w->accepted = c;
	if (conn)
		conn->accepted_ns = now;
}

/*
 * Remembers the first half of READS_MAX reads, which hold a header that came at once and was
 * followed by a long body, and the latest, which hold the end of a header that came in drops.
 */
static __always_inline void connection_received(struct connection *conn, __u64 bytes, __u64 now)
{
	__u32 n = conn->reads_len;

	conn->received += bytes;
	conn->last_read_ns = now;
	conn->reads_len = n + 1;
	if (n >= READS_MAX)
		n = READS_MAX / 2 + n % (READS_MAX / 2);
	if (n < READS_MAX) { /* always: for the verifier */
		conn->reads[n].at_ns = now;
		conn->reads[n].end = conn->received;
	}
}

/*
 * Interim responses (100, 103) are no part of the response: nginx sets headers_out.status of the
 * main request before its header is sent, and not for them.
 */
static __always_inline bool response_begun(__u64 c)
{
	struct ngx_http_request_s *r, *mr;

	r = NGX_GET((struct ngx_connection_s *)c, data);
	if (!is_request(r))
		return false;
	mr = NGX_GET(r, main);
	return NGX_GET(mr, headers_out.status) != 0;
}

static __always_inline void connection_sent(struct connection *conn, __u64 c, __u64 now)
{
	if (!conn->response_first_ns) {
		if (!response_begun(c))
			return;
		conn->response_first_ns = now;
	}
	conn->response_last_ns = now;
}

/*
 * ngx_http_request_body_save_filter(r, in): called for requests with a body only, and for the first
 * time when the header has been parsed and no read has followed the one that completed it.
 */
static __always_inline void request_body(struct worker *w, struct ngx_http_request_s *r)
{
	struct connection *conn;

	if (!is_request(r))
		return;
	conn = connection_find(w, (__u64)NGX_GET(r, connection));
	if (conn && !conn->header_read_ns)
		conn->header_read_ns = conn->last_read_ns;
}

/* One entry of the map: gone when it is of the process that ends. */
static long forget_if_of(struct bpf_map *map, const struct connection_key *key, void *value,
			 __u32 *pid)
{
	if (key->pid == *pid)
		bpf_map_delete_elem(map, key);
	return 0;
}

/* A process ends, and all its connections with it. */
static __always_inline void connections_forget(__u32 pid)
{
	bpf_for_each_map_elem(&connections, forget_if_of, &pid, 0);
}

/* The connection's next request begins where nginx stopped to read this one. */
static __always_inline void connection_next_request(struct worker *w, struct connection *conn,
						    __u64 unread, __u64 now)
{
	conn->generation = ++w->generation;
	conn->previous_ended_ns = now;
	conn->header_read_ns = 0;
	conn->response_first_ns = 0;
	conn->response_last_ns = 0;
	conn->reads_len = 0;
	if (unread > conn->received) {
		/* It was read before tracing began: the next request is under way, too. */
		conn->flags = REQUEST_ADOPTED;
		conn->start = conn->received;
		return;
	}
	conn->flags = 0;
	conn->start = conn->received - unread;
	if (unread) {
		/*
		 * What nginx has read and not parsed came with the last read: it reads on only
		 * when it has parsed all before.
		 */
		conn->reads[0].at_ns = conn->last_read_ns;
		conn->reads[0].end = conn->received;
		conn->reads_len = 1;
	}
}

#endif
