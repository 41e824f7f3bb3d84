/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sockets of traced processes: what nginx uses each for, and which code handles its bytes. All
 * programs that see bytes on sockets call these functions. Their source
 * (src/attach/socket_source.rs) decides where a socket's state is kept, and makes no other
 * difference.
 */
#ifndef NGX_BPF_SOCKET_BPF_H
#define NGX_BPF_SOCKET_BPF_H

#include "client.bpf.h"
#include "close.bpf.h"
#include "http3.bpf.h"
#include "stall.bpf.h"
#include "tcp.bpf.h"
#include "upstream.bpf.h"
#include "worker.bpf.h"

/*
 * With deferred accept, or when bytes are there already, nginx reads from a connection before it
 * registers it with epoll. Then it is the connection that was initialised last, if the descriptor
 * of that one leads to this socket.
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

/* Identifies a socket, once: only accepted connections have c->listening. */
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
	s->pid = w->pid;
	if (!listening) {
		s->kind = SOCKET_UPSTREAM;
		s->is_unix = BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX;
		return;
	}
	s->kind = SOCKET_CLIENT;
	conn = connection_find(w, s->connection);
	if (!conn)
		conn = connection_adopt(w, s->connection);
	if (!conn)
		return;
	addresses_of(&conn->local, &conn->peer, sk);
	conn->sk = (__u64)sk;
}

/* The state of a descriptor's socket; NULL: the map is full. */
static __always_inline struct socket_state *descriptor_of(struct worker *w, __u32 fd)
{
	struct descriptor_key key = {.pid = w->pid, .fd = fd};
	struct socket_state *s = bpf_map_lookup_elem(&descriptors, &key);

	return s ? s : entry_create(&descriptors, &key, BPF_NOEXIST);
}

static __always_inline struct socket_state *socket_of(struct worker *w, struct sock *sk, __u32 fd)
{
	struct socket_state *s;

	s = by_descriptor ? descriptor_of(w, fd)
			  : bpf_sk_storage_get(&sockets, sk, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (s && s->kind == SOCKET_UNKNOWN)
		socket_identify(w, s, sk);
	return s;
}

/* One that was found by its descriptor is no more than an address to the verifier. */
static __always_inline bool is_datagram(struct sock *sk)
{
	return (by_descriptor ? BPF_CORE_READ(sk, sk_type) : sk->sk_type) == SOCK_DGRAM;
}

/* The close of a unix socket is not seen, and neither would be the end of its last stall. */
static __always_inline void upstream_stalled(struct worker *w, struct socket_state *s,
					     struct sock *sk, int ret, __u64 now)
{
	struct attempt_times *a;
	__u64 ns;

	if (s->is_unix)
		return;
	ns = stall_update(&s->stall, (void *)s->connection, sk, false, ret, now);
	if (!ns)
		return;
	a = upstream_attempt(w, s);
	if (a)
		a->stall_ns += ns;
}

/* `ret` is what send() returned: bytes, or an error. */
static __always_inline void socket_sent(struct worker *w, struct sock *sk, __u32 fd, int ret)
{
	__u64 now = bpf_ktime_get_ns();
	struct socket_state *s;
	struct connection *conn;

	if (is_datagram(sk))
		return datagram_sent(w, ret, now);
	s = socket_of(w, sk, fd);
	if (!s)
		return;
	if (s->kind == SOCKET_UPSTREAM) {
		upstream_stalled(w, s, sk, ret, now);
		if (ret > 0) {
			upstream_sent(w, s, now);
			s->last_ns = now;
		} else if (ret != -EAGAIN) {
			upstream_unsent(w, s);
		}
		upstream_measure(w, s, sk);
	} else if (s->kind == SOCKET_CLIENT) {
		conn = connection_find(w, s->connection);
		if (!conn)
			return;
		if (ret < 0 && ret != -EAGAIN)
			conn->flags |= REQUEST_SOCKET_ERROR;
		if (!conn->is_multiplexed)
			conn->stall_ns += stall_update(&conn->stall, (void *)s->connection, sk,
						       true, ret, now);
		client_sent(w, conn, (void *)s->connection, ret, now);
	}
}

/* A client's connection was read: `ret` is bytes, 0 at its end, or an error. */
static __always_inline void client_read(struct worker *w, struct socket_state *s,
					struct connection *conn, struct sock *sk, int ret,
					__u64 now)
{
	struct ngx_connection_s *c = (struct ngx_connection_s *)s->connection;

	if (ret > 0) {
		client_received(w, conn, c, sk, now);
		s->is_shaking = conn->handshake.is_tls && !conn->handshake.is_over;
		return;
	}
	if (ret)
		conn->flags |= REQUEST_SOCKET_ERROR;
	input_ended(conn, c, now);
}

/* `ret` is what recv() returned: bytes, 0 at the end of the stream, or an error. */
static __always_inline void socket_received(struct worker *w, struct sock *sk, __u32 fd, int ret)
{
	__u64 now = bpf_ktime_get_ns();
	struct socket_state *s;
	struct connection *conn;

	if (is_datagram(sk)) {
		if (ret > 0) {
			w->answer_sk = (__u64)sk;
			w->answer_ns = now;
			datagram_received(w, (__u64)sk, now);
		}
		return;
	}
	if (ret > 0)
		w->answer_ns = 0;
	s = socket_of(w, sk, fd);
	if (!s)
		return;
	if (s->is_shaking && ret <= 0 && (conn = connection_find(w, s->connection)))
		handshake_look(w, &conn->handshake, (void *)s->connection);
	if (ret == -EAGAIN) {
		s->is_drained = 1;
	} else if (s->kind == SOCKET_UPSTREAM) {
		upstream_received(w, s, sk, ret, now);
		upstream_measure(w, s, sk);
		if (ret > 0)
			s->last_ns = now;
	} else if (s->kind == SOCKET_CLIENT && (ret || with_connections)) {
		conn = connection_find(w, s->connection);
		if (conn)
			client_read(w, s, conn, sk, ret, now);
	}
}

/* A connect begins: nginx has registered the connection with epoll before. */
static __always_inline void socket_connecting(struct worker *w, struct sock *sk)
{
	__u64 now = bpf_ktime_get_ns();
	struct socket_state *s;
	__u32 fd = 0;

	if (by_descriptor) {
		fd = NGX_GET((struct ngx_connection_s *)connection_of_epoll(sk), fd);
		if (sock_of(fd) != sk)
			return;
	}
	s = socket_of(w, sk, fd);
	if (s && s->kind == SOCKET_UPSTREAM)
		upstream_connecting(w, s, now);
}

/*
 * nginx is about to close a client's connection. If it has no request there, nothing is in flight:
 * what was read since the last one was a PROXY protocol header or a TLS alert, and what was sent
 * was an alert. A process that ends has no memory any more, and its requests in flight are counted.
 */
static __always_inline void client_closing(struct worker *w, struct socket_state *s)
{
	struct connection *conn = connection_find(w, s->connection);
	struct ngx_connection_s *c = (void *)s->connection;

	if (!conn || bpf_get_current_task_btf()->flags & PF_EXITING)
		return;
	handshake_settle(&conn->handshake);
	if (!is_request(NGX_GET(c, data)))
		request_clear(conn);
}

/*
 * The kernel closes a connection, because nginx does or because it was reset (TCP_CLOSE). A reset
 * may interrupt another worker than the one that has the connection, or nginx between a read and
 * the request that it makes of what it has read.
 */
static __always_inline void socket_closing(struct worker *w, struct sock *sk, int state)
{
	struct socket_state *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);

	if (!s || s->pid != w->pid)
		return;
	if (s->kind == SOCKET_UPSTREAM) {
		upstream_measure(w, s, sk);
		upstream_closing(w, s);
	} else if (s->kind == SOCKET_CLIENT && state != TCP_CLOSE) {
		client_closing(w, s);
	}
}

/* Whether a socket's change to this state is handled. */
static __always_inline bool is_state_wanted(int state)
{
	if (with_connections && (state == TCP_FIN_WAIT2 || state == TCP_CLOSING))
		return true;
	return state == TCP_SYN_SENT ||
	       ((!by_descriptor || with_connections) &&
		(state == TCP_FIN_WAIT1 || state == TCP_LAST_ACK || state == TCP_CLOSE));
}

static __always_inline int state_changed(struct sock *sk, int state)
{
	struct worker *w = current_storage();

	if (!w)
		return 0;
	if (state == TCP_SYN_SENT) {
		socket_connecting(w, sk);
		return 0;
	}
	if (with_connections)
		client_closed(w, sk, close_state_of_socket(state));
	/* In the other states nginx has shut it down before, or the client was first. */
	if (!by_descriptor && state != TCP_FIN_WAIT2 && state != TCP_CLOSING)
		socket_closing(w, sk, state);
	return 0;
}

/* The next socket of this descriptor is another one. */
static __always_inline void descriptor_closed(struct worker *w, __u32 fd)
{
	struct descriptor_key key = {.pid = w->pid, .fd = fd};
	struct connection_key of_client = {.pid = w->pid};
	struct socket_state *s = bpf_map_lookup_elem(&descriptors, &key);
	struct connection *conn;

	if (!s)
		return;
	of_client.connection = s->connection;
	if (s->kind == SOCKET_UPSTREAM)
		upstream_closing(w, s);
	else if (s->kind == SOCKET_CLIENT && (conn = connection_find(w, s->connection))) {
		handshake_settle(&conn->handshake);
		connection_remove(conn, &of_client);
	}
	bpf_map_delete_elem(&descriptors, &key);
}

#endif
