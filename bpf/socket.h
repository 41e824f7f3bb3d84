/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sockets of traced processes: whose they are, and their bytes. This is all that the programs on
 * kernel sockets call; what tells of the bytes (src/sockets.rs) is nothing to the code behind.
 */
#ifndef NGX_BPF_SOCKET_H
#define NGX_BPF_SOCKET_H

#include "client.h"
#include "http3.h"
#include "upstream.h"

/*
 * The ngx_connection_t that nginx's epoll has for this socket: ngx_epoll_add_connection() and
 * ngx_epoll_add_event() register it with an instance bit in bit 0. 0: not in any epoll set.
 */
static __always_inline __u64 connection_of_epoll(struct sock *sk)
{
	struct hlist_node *node = NULL;
	struct hlist_head *items;
	struct socket *sock;
	struct file *file;
	void *item;
	__u64 c = 0;

	sock = BPF_CORE_READ(sk, sk_socket);
	file = BPF_CORE_READ(sock, file);
	items = BPF_CORE_READ(file, f_ep);
	if (bpf_core_read(&node, sizeof(node), &items->first) || !node)
		return 0;
	item = (void *)node - bpf_core_field_offset(struct epitem, fllink);
	bpf_core_read(&c, sizeof(c), &((struct epitem *)item)->event.data);
	return c & ~1ULL;
}

/*
 * With deferred accept, or when bytes are there already, nginx reads before it registers: then
 * the connection is the one initialised last, if its descriptor is this socket.
 */
static __always_inline __u64 connection_of_accept(struct worker *w, struct sock *sk)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)w->accepted;
	struct file *file;

	if (!c)
		return 0;
	file = file_of(NGX_GET(c, fd));
	return file && BPF_CORE_READ(sk, sk_socket, file) == file ? (__u64)c : 0;
}

/* Finds out what the socket is, once: accepted connections have a listening socket. */
static __always_inline void socket_identify(struct worker *w, struct socket_state *s,
					    struct sock *sk)
{
	struct connection *conn;
	bool failed = false;
	void *listening;

	s->connection = connection_of_epoll(sk);
	if (!s->connection)
		s->connection = connection_of_accept(w, sk);
	if (!s->connection)
		return;
	listening = NGX_READ(failed, (struct ngx_connection_s *)s->connection, listening);
	if (failed)
		return;
	if (!listening) {
		s->kind = SOCKET_UPSTREAM;
		s->is_unix = BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX;
		return;
	}
	s->kind = SOCKET_CLIENT;
	conn = connection_find(w, s->connection);
	if (!conn)
		conn = connection_adopt(w, s->connection);
	if (conn)
		addresses_of(&conn->local, &conn->peer, sk);
}

static __always_inline struct socket_state *socket_of(struct worker *w, struct sock *sk)
{
	struct socket_state *s;

	s = bpf_sk_storage_get(&sockets, sk, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (s && s->kind == SOCKET_UNKNOWN)
		socket_identify(w, s, sk);
	return s;
}

/* `ret` as send() returned it: bytes, or an error. */
static __always_inline void socket_sent(struct worker *w, struct sock *sk, int ret)
{
	__u64 now = bpf_ktime_get_ns();
	struct socket_state *s;
	struct connection *conn;

	if (sk->sk_type == SOCK_DGRAM)
		return datagram_sent(w, ret, now);
	s = socket_of(w, sk);
	if (!s)
		return;
	if (s->kind == SOCKET_UPSTREAM) {
		if (ret > 0)
			upstream_sent(w, s, now);
	} else if (s->kind == SOCKET_CLIENT) {
		conn = connection_find(w, s->connection);
		if (conn)
			client_sent(w, conn, (void *)s->connection, ret, now);
	}
}

/* `ret` as recv() returned it: bytes, 0 at the end of the stream, or an error. */
static __always_inline void socket_received(struct worker *w, struct sock *sk, int ret)
{
	__u64 now = bpf_ktime_get_ns();
	struct socket_state *s;
	struct connection *conn;

	if (sk->sk_type == SOCK_DGRAM) {
		if (ret > 0)
			datagram_received(w, (__u64)sk, now);
		return;
	}
	s = socket_of(w, sk);
	if (!s)
		return;
	if (s->kind == SOCKET_UPSTREAM) {
		upstream_received(w, s, ret, now);
	} else if (s->kind == SOCKET_CLIENT && ret > 0) {
		conn = connection_find(w, s->connection);
		if (conn)
			client_received(w, conn, (void *)s->connection, now);
	}
}

/* There was nothing to read. */
static __always_inline void socket_drained(struct sock *sk)
{
	struct socket_state *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);

	if (s)
		s->is_drained = 1;
}

static __always_inline void socket_connecting(struct worker *w, struct sock *sk)
{
	__u64 now = bpf_ktime_get_ns();
	struct socket_state *s = socket_of(w, sk);

	if (s && s->kind == SOCKET_UPSTREAM)
		upstream_connecting(w, s, now);
}

#endif
