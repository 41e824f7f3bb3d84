/* SPDX-License-Identifier: GPL-2.0-only */
/* The entry of a client's connection, from its accept through one request after the other. */
#ifndef NGX_BPF_CONNECTION_BPF_H
#define NGX_BPF_CONNECTION_BPF_H

#include "arrival.bpf.h"
#include "entry.bpf.h"
#include "filter.bpf.h"
#include "submit.bpf.h"
#include "tls.bpf.h"
#include "turn.bpf.h"

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

/* Notes where nginx has its connections, of which `c` is one: process_exit_read looks there. */
static __always_inline void connection_note(struct worker *w, __u64 c)
{
	__u64 from = w->connections_from, a, b = w->connections_stride, rest;

	if (!memory_at_exit)
		return;
	if (!from)
		w->connections_from = w->connections_to = from = c;
	a = c > from ? c - from : from - c;
	if (c < from)
		w->connections_from = c;
	if (c > w->connections_to)
		w->connections_to = c;
	if (!a || (b && a % b == 0))
		return;
	for (__u32 i = 0; i < GCD_STEPS && b; i++) {
		rest = a % b;
		a = b;
		b = rest;
	}
	w->connections_stride = a;
}

/* The entry of a connection that nginx accepted before tracing began. */
static __always_inline struct connection *connection_adopt(struct worker *w, __u64 c)
{
	struct connection *conn = connection_new(w, c);

	connection_note(w, c);
	if (conn)
		conn->flags = REQUEST_ADOPTED;
	return conn;
}

/*
 * Whether nginx has had the connection before, in ngx_stream, whose directive pass hands it over
 * after its TLS handshake, or when its first bytes were looked at (ssl_preread). nginx waits for
 * these through epoll, and the event of a connection that was just accepted is not yet there:
 * ngx_event_accept(). One that is passed without a wait is as good as just accepted.
 */
static __always_inline bool is_passed(struct worker *w, struct connection *conn)
{
	struct ngx_event_s *ev = OF_PEER(w, read);

	return conn->handshake.is_tls || NGX_GET(ev, write) & NGX_EVENT_ACTIVE;
}

/* Notes the address of the client of a connection that was just accepted. */
static __always_inline void remote_note(struct worker *w, struct connection *conn)
{
	void *sockaddr = OF_PEER(w, sockaddr);
	struct {
		__u16 family;
		__u16 port;
		__u32 ipv4;
	} from = {};

	if (bpf_probe_read_user(&from, sizeof(from), sockaddr) || from.family != AF_INET)
		return;
	conn->remote.sockaddr = (__u64)sockaddr;
	conn->remote.text = (__u64)OF_PEER(w, addr_text.data);
	conn->remote.ipv4 = from.ipv4;
	conn->remote.port = from.port;
}

/* ngx_http_init_connection(c): whatever used this ngx_connection_t before is over. */
static __always_inline void connection_accepted(struct worker *w, struct ngx_connection_s *c,
						__u64 now)
{
	struct connection *conn = connection_new(w, (__u64)c);

	w->accepted = (__u64)c;
	connection_note(w, (__u64)c);
	learn_plain_recv(w, c);
	if (!conn)
		return;
	conn->accepted_ns = now;
	connection_copy(w, c);
	remote_note(w, conn);
	/* The pass directive of ngx_stream hands over connections after their handshake. */
	conn->handshake.is_tls = bpf_core_field_exists(c->ssl) && OF_PEER(w, ssl);
	conn->handshake.is_over = conn->handshake.is_tls;
	if (!is_passed(w, conn))
		conn->established_ns = established_ns(sock_of(OF_PEER(w, fd)));
	if (conn->established_ns)
		turn_waited(now - conn->established_ns, now);
}

/*
 * How long the bytes that were just read from a client lay in its socket while nginx could have
 * read them: since it has accepted the connection, read before, and ended the request before.
 */
static __always_inline __u64 read_wait_ns(struct connection *conn, struct sock *sk, __u64 now)
{
	__u64 handshake_ns = conn->handshake.last_ns, from = conn->last_read_ns, ns;

	if (from < conn->previous_ended_ns)
		from = conn->previous_ended_ns;
	if (from < conn->accepted_ns)
		from = conn->accepted_ns;
	if (from < handshake_ns)
		from = handshake_ns;
	ns = lain_ns(sk, from, now);
	turn_waited(ns, now);
	return ns;
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

enum { CONTINUE_BYTES = 25 }; /* "HTTP/1.1 100 Continue" and an empty line */

/*
 * Whether the bytes that are sent now are the response's. Those of an interim response are not:
 * nginx's own is short, and longer ones come from an upstream. So of a request without one less is
 * read. draft_entry() does not trust this where there was no response after all.
 */
static __always_inline bool response_begun(struct connection *conn, struct ngx_connection_s *c,
					   int sent)
{
	struct ngx_http_request_s *r, *main = (struct ngx_http_request_s *)conn->request;
	struct {
		__u64 head[REQUEST_HEAD_BYTES / 8];
	} copy;
	__u32 size = NGX_END(r, upstream);

	if (!main) {
		r = NGX_GET(c, data);
		if (size > sizeof(copy.head) || /* false in all known layouts */
		    bpf_probe_read_user(copy.head, size, r) ||
		    OF_HEAD(&copy, signature) != NGX_HTTP_MODULE)
			return false;
		if (!OF_HEAD(&copy, upstream) && sent > CONTINUE_BYTES)
			return true;
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

/* Whether a request seems to be in flight: its first byte was read, or some of its response sent.
 */
static __always_inline bool is_in_flight(struct connection *conn)
{
	return conn->request_first_ns || conn->request || conn->header_ns ||
	       conn->response_first_ns;
}

/* Forgets what is_in_flight() goes by. */
static __always_inline void request_clear(struct connection *conn)
{
	conn->request_first_ns = 0;
	conn->request = 0;
	conn->header_ns = 0;
	conn->response_first_ns = 0;
}

/* Removes the entry of a connection that is closed, and what its streams share. */
static __always_inline void connection_remove(struct connection *conn, struct connection_key *key)
{
	if (conn->is_multiplexed)
		bpf_map_delete_elem(&multiplexes, key);
	bpf_map_delete_elem(&connections, key);
}

/*
 * The kernel destroys a socket. `is_closed` says that the process that closed it goes on: nothing
 * is in flight then, since nginx frees a request before it closes the connection. Otherwise a
 * request in flight shows that the process has ended. User space reports it
 * (src/attach/departed.rs).
 */
static __always_inline void socket_destroyed(struct socket_state *s, __u64 sk, bool is_closed)
{
	struct connection_key key = {.connection = s->connection, .pid = s->pid};
	struct connection *conn;

	if (s->kind != SOCKET_CLIENT)
		return;
	conn = bpf_map_lookup_elem(&connections, &key);
	/* Another connection may use the same ngx_connection_t by now. */
	if (!conn || conn->sk != sk)
		return;
	if (is_closed)
		handshake_settle(&conn->handshake);
	if (is_closed || !is_in_flight(conn))
		connection_remove(conn, &key);
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
	request_clear(conn);
	conn->generation = ++w->generation;
	conn->sample = SAMPLE_UNASKED;
	conn->previous_ended_ns = now;
	conn->previous_read_ns = conn->last_read_ns;
	conn->body_ns = 0;
	conn->response_last_ns = 0;
	conn->unsure.last_ns = 0;
	conn->stall.since_ns = 0;
	conn->stall_ns = 0;
	__builtin_memset(conn->waits, 0, sizeof(conn->waits));
	conn->waited_ns = 0;
	conn->unresolved = 0;
	conn->is_wait_mixed = 0;
	conn->read_wait_ns = 0;
	conn->subrequests_seen = 0;
	if (with_tcp)
		conn->upstream_tcp.cwnd = 0;
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
