/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --connections: the ends of clients' connections. When nginx closes one, its memory still shows
 * why (ngx_close_connection() keeps all bits), and what the entry knows says how far the connection
 * had come. A connection whose last request has a record is of no interest, unless it was idle.
 */
#ifndef NGX_BPF_CLOSE_BPF_H
#define NGX_BPF_CLOSE_BPF_H

#include "ending.bpf.h"
#include "worker.bpf.h"

/*
 * nginx has accepted a connection: the key is its socket, which is all that its end shows. Nothing
 * else leads from there to the ngx_connection_t of a connection on which no byte has come.
 */
static __always_inline void close_await(struct worker *w, struct ngx_connection_s *c)
{
	struct socket_key key = {.pid = w->pid};
	__u64 value = (__u64)c;
	struct connection *conn;

	key.sk = (__u64)sock_of(NGX_GET(c, fd));
	conn = connection_find(w, value);
	if (!conn || !is_tcp((void *)key.sk))
		return;
	conn->sk = key.sk;
	conn->number = NGX_GET(c, number);
	if (bpf_map_update_elem(&accepts, &key, &value, BPF_ANY)) {
		__sync_fetch_and_add(&counters.connections, 1);
		__sync_fetch_and_add(&counters.lost_connections, 1);
	}
}

/* ngx_http_init_connection(c) */
static __always_inline void client_opened(struct worker *w, struct ngx_connection_s *c)
{
	connection_opened(w, c);
	if (with_connections)
		close_await(w, c);
}

/* A read of a client's connection has found its end, or has failed. */
static __always_inline void input_ended(struct connection *conn, struct ngx_connection_s *c,
					__u64 now)
{
	if (!with_connections)
		return;
	conn->input_ended_ns = now;
	conn->requests = NGX_GET(c, requests);
}

/* A request has ended. If it was a stream of HTTP/2, its connection has an entry of its own. */
static __always_inline void request_closed(struct worker *w, struct connection *conn, __u64 now)
{
	struct connection *parent;

	if (!with_connections || conn->stream.connection)
		return;
	parent = conn->parent ? connection_find(w, conn->parent) : conn;
	if (parent)
		parent->idle_ns = now;
}

/* What the entry knows of how far its connection had come. */
static __always_inline __u32 close_state(struct connection *conn)
{
	__u32 state = 0;

	if (conn->handshake.is_tls)
		state |= conn->handshake.is_over ? CLOSE_SECURE : CLOSE_HANDSHAKE;
	if (conn->last_read_ns)
		state |= CLOSE_READ;
	if (conn->is_multiplexed)
		state |= CLOSE_HTTP2;
	/* When the last request ended, nginx went on reading. */
	if (conn->idle_ns && conn->input_ended_ns > conn->idle_ns)
		state |= CLOSE_IDLE;
	return state;
}

/* Sends the end of a connection to user space. `flags` are those of ending_of(). */
static __always_inline void close_report(struct worker *w, struct connection *conn, struct sock *sk,
					 __u32 state, __u32 flags)
{
	struct connection_record r = {.kind = RECORD_CONNECTION, .size = sizeof(r)};

	if ((conn->requests || conn->idle_ns) && !(state & CLOSE_IDLE))
		return;
	r.pid = w->pid;
	r.container = w->container;
	r.closed_ns = bpf_ktime_get_ns();
	r.established_ns = conn->established_ns;
	r.accepted_ns = conn->accepted_ns;
	r.handshake_first_ns = conn->handshake.first_ns;
	r.handshake_last_ns = conn->handshake.last_ns;
	r.idle_ns = conn->idle_ns;
	r.connection = conn->number;
	r.connection_requests = conn->requests;
	r.state = state;
	r.flags = flags | (conn->flags & REQUEST_SOCKET_ERROR);
	if (conn->local.family) {
		r.local = conn->local;
		r.peer = conn->peer;
	} else {
		addresses_of(&r.local, &r.peer, sk);
	}
	__sync_fetch_and_add(&counters.connections, 1);
	if (!ring_output(&r, sizeof(r)))
		__sync_fetch_and_add(&counters.lost_connections, 1);
}

/*
 * What nginx's memory knows. Of c->idle only HTTP/1 makes use: a connection of HTTP/2 has it from
 * its begin, and is idle if its time was up between two requests.
 */
static __always_inline __u32 close_state_of_nginx(__u32 state, __u32 bits, __u32 flags)
{
	if (!(state & CLOSE_HTTP2))
		return bits & NGX_CONNECTION_IDLE ? state | CLOSE_IDLE : state & ~CLOSE_IDLE;
	return flags & REQUEST_READ_TIMEOUT ? state | CLOSE_IDLE : state;
}

/* What the next state of a socket that nginx closes says. */
static __always_inline __u32 close_state_of_socket(int state)
{
	if (state == TCP_LAST_ACK)
		return CLOSE_BY_CLIENT;
	return state == TCP_CLOSE ? CLOSE_UNREAD : 0;
}

/*
 * A socket changes its state or is destroyed. Only if nginx closes it, the connection has ended:
 * ngx_close_connection() forgets the descriptor before. Otherwise the client was first, or nginx
 * lingers.
 */
static __always_inline void client_closed(struct worker *w, struct sock *sk, __u32 how)
{
	struct socket_key key = {.pid = w->pid, .sk = (__u64)sk};
	__u64 *value = bpf_map_lookup_elem(&accepts, &key);
	__u32 known, flags, bits;
	struct ngx_connection_s *c;
	struct connection *conn;

	if (!value)
		return;
	c = (struct ngx_connection_s *)*value;
	if (NGX_GET_OR(c, fd, 0) != -1)
		return;
	bpf_map_delete_elem(&accepts, &key);
	conn = connection_find(w, (__u64)c);
	if (!conn || conn->sk != (__u64)sk || !knows_connection_bits())
		return;
	bits = NGX_GET(c, buffered);
	flags = ending_of(bits, NGX_GET(c, read), NGX_GET(c, write));
	known = close_state_of_nginx(close_state(conn), bits, flags) | how;
	conn->requests = NGX_GET(c, requests);
	close_report(w, conn, sk, known, flags);
}

/*
 * The kernel destroys a socket. If its close was not seen, it was closed before nginx closed it,
 * because it was reset.
 */
static __always_inline int socket_ended(struct sock *sk)
{
	struct worker *w = current_storage();

	if (w)
		client_closed(w, sk, CLOSE_RESET);
	return 0;
}

#endif
