/* SPDX-License-Identifier: GPL-2.0-only */
/* The entry of a client's connection, from its accept through one request after the other. */
#ifndef NGX_BPF_CONNECTION_BPF_H
#define NGX_BPF_CONNECTION_BPF_H

#include "entry.bpf.h"
#include "filter.bpf.h"
#include "kernel.bpf.h"
#include "submit.bpf.h"
#include "tls.bpf.h"

static __always_inline struct connection *connection_find(struct worker *w, __u64 c)
{
	struct connection_key key = {.connection = c, .pid = w->pid};

	return bpf_map_lookup_elem(&connections, &key);
}

static __always_inline void connection_forget(struct worker *w, __u64 c)
{
	struct connection_key key = {.connection = c, .pid = w->pid};

	bpf_map_delete_elem(&connections, &key);
}

/* A new entry, which overwrites that of an earlier connection. NULL: the map is full. */
static __always_inline struct connection *connection_new(struct worker *w, __u64 c)
{
	struct connection_key key = {.connection = c, .pid = w->pid};
	struct connection *conn = entry_create(&connections, &key, BPF_ANY);

	if (conn)
		conn->generation = ++w->generation;
	return conn;
}

/* The entry of a connection that nginx accepted before tracing began. */
static __always_inline struct connection *connection_adopt(struct worker *w, __u64 c)
{
	struct connection *conn = connection_new(w, c);

	if (conn)
		conn->flags = REQUEST_ADOPTED;
	return conn;
}

/* ngx_http_init_connection(c): whatever used this ngx_connection_t before is over. */
static __always_inline void connection_accepted(struct worker *w, struct ngx_connection_s *c,
						__u64 now)
{
	struct connection *conn = connection_new(w, (__u64)c);

	w->accepted = (__u64)c;
	learn_plain_recv(w, c);
	if (!conn)
		return;
	conn->accepted_ns = now;
	/* The pass directive of ngx_stream hands over connections after their handshake. */
	conn->handshake.is_tls = NGX_GET_OR(c, ssl, NULL) != NULL;
	conn->handshake.is_over = conn->handshake.is_tls;
}

/* Whether the sample leaves out the request in flight. It is asked once, when it first matters. */
static __always_inline bool is_left_out(struct connection *conn)
{
	if (filter_sample < 2)
		return false;
	if (conn->sample == SAMPLE_UNASKED)
		conn->sample = is_of_sample() ? SAMPLE_IN : SAMPLE_OUT;
	return conn->sample == SAMPLE_OUT;
}

/* Whether bytes that are sent now are the response's. */
static __always_inline bool response_begun(struct connection *conn, struct ngx_connection_s *c)
{
	struct ngx_http_request_s *r, *main = (struct ngx_http_request_s *)conn->request;

	if (!main) {
		r = NGX_GET(c, data);
		if (!is_request(r))
			return false;
		main = NGX_GET(r, main);
		conn->request = (__u64)main;
	}
	return has_response(main);
}

/* The unsure bytes are part of the response if c->sent has grown since. */
static __always_inline void response_settle(struct connection *conn, __u64 sent)
{
	struct unsure *unsure = &conn->unsure;

	if (!unsure->last_ns || sent <= unsure->sent)
		return;
	if (!conn->response_first_ns)
		conn->response_first_ns = unsure->first_ns;
	conn->response_last_ns = unsure->last_ns;
	unsure->last_ns = 0;
}

/*
 * Whether a request was in flight when the process ended: its first byte was read, or some of its
 * response was seen. A stream's entry is removed when its request ends. A connection's entry
 * outlives the connection, so that it counts only while the process has its socket, which the
 * kernel closes after this.
 */
static __always_inline bool is_in_flight(struct connection *conn, __u32 pid)
{
	struct connection_key parent = {.pid = pid, .connection = conn->stream.connection};
	struct connection *parent_conn;

	if (conn->is_multiplexed || !(conn->request_first_ns || conn->request || conn->header_ns ||
				      conn->response_first_ns))
		return false;
	if (conn->is_stream)
		return true;
	if (!conn->stream.connection)
		return conn->sk && (__u64)sock_of(conn->fd) == conn->sk;
	parent_conn = bpf_map_lookup_elem(&connections, &parent);
	return parent_conn && !parent_conn->is_over && !conn->is_over;
}

/* The context of a walk through the connections of a process that ends. */
struct departure {
	__u32 pid;
	__u32 is_left; /* some entries were kept */
};

/*
 * Counts the request in flight as lost, and removes the entry. A stream of HTTP/3 looks up the
 * connection that it is on, so that this one is kept until all streams have done so; it is known by
 * having no socket of its own.
 */
static long connection_leave(struct bpf_map *map, const struct connection_key *key,
			     struct connection *conn, struct departure *departure)
{
	if (key->pid != departure->pid)
		return 0;
	if (is_in_flight(conn, departure->pid)) {
		__sync_fetch_and_add(&counters.seen, 1);
		request_lost(LOST_WORKER_EXIT);
	}
	if (knows_quic() && !conn->sk && !conn->is_stream && !conn->stream.connection)
		departure->is_left = 1;
	else
		bpf_map_delete_elem(map, key);
	return 0;
}

/* Removes an entry of any map if it belongs to the process that ends. */
static long forget_if_of(struct bpf_map *map, const __u32 *key, void *value, __u32 *pid)
{
	if (*key == *pid)
		bpf_map_delete_elem(map, key);
	return 0;
}

/* Removes all entries of a process that ends. */
static __always_inline void connections_forget(__u32 pid)
{
	struct departure departure = {.pid = pid};

	/* The map is large: it is walked again only where that is needed. */
	bpf_for_each_map_elem(&connections, connection_leave, &departure, 0);
	if (departure.is_left)
		bpf_for_each_map_elem(&connections, forget_if_of, &pid, 0);
	bpf_for_each_map_elem(&multiplexes, forget_if_of, &pid, 0);
	bpf_for_each_map_elem(&subrequests, forget_if_of, &pid, 0);
	if (by_descriptor)
		bpf_for_each_map_elem(&descriptors, forget_if_of, &pid, 0);
}

/*
 * When the first byte of the request was read. If nothing was read for it alone, it came with the
 * last read before: it was pipelined, left in OpenSSL's buffer, or came with the end of the
 * handshake, after which it begins at the earliest. 0: before tracing began.
 */
static __always_inline __u64 request_first_ns(struct connection *conn)
{
	__u64 read_ns = conn->previous_read_ns, handshake_ns = conn->handshake.last_ns;

	if (conn->request_first_ns)
		return conn->request_first_ns;
	return read_ns > handshake_ns ? read_ns : handshake_ns;
}

/* Prepares the entry for the connection's next request. */
static __always_inline void connection_next_request(struct worker *w, struct connection *conn,
						    struct ngx_connection_s *c, __u64 now)
{
	conn->generation = ++w->generation;
	conn->request = 0;
	conn->sample = SAMPLE_UNASKED;
	conn->previous_ended_ns = now;
	conn->previous_read_ns = conn->last_read_ns;
	conn->request_first_ns = 0;
	conn->header_ns = 0;
	conn->body_ns = 0;
	conn->response_first_ns = 0;
	conn->response_last_ns = 0;
	conn->unsure.last_ns = 0;
	conn->subrequests_seen = 0;
	if (!conn->handshake.is_over)
		conn->handshake.is_tls = NGX_GET_OR(c, ssl, NULL) != NULL;
	conn->handshake.is_over = 1;
	/*
	 * Bytes of the next request, too, may have been read before tracing began. But if the
	 * handshake was seen, it brought all bytes that no later read has brought.
	 */
	conn->flags = conn->last_read_ns || conn->handshake.last_ns ? 0 : REQUEST_ADOPTED;
}

#endif
