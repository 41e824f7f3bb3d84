/* SPDX-License-Identifier: GPL-2.0-only */
/* Which attempt of which request an upstream socket works for. */
#ifndef NGX_BPF_ATTEMPT_BPF_H
#define NGX_BPF_ATTEMPT_BPF_H

#include "http2.bpf.h"

/* The slot of an attempt: the first ones have one each, and all later ones share the last. */
static __always_inline __u32 attempt_slot(__u32 index, __u32 max)
{
	return index < max ? index : max - 1;
}

/* `max` is a power of two, so that the verifier sees that this stays inside the array. */
static __always_inline struct attempt_times *attempt_at(struct attempt_times *attempts, __u64 slot,
							__u32 max)
{
	barrier_var(slot);
	return &attempts[slot & (max - 1)];
}

static __always_inline struct subrequest_times *subrequest_find(struct worker *w, __u64 r)
{
	struct connection_key key = {.connection = r, .pid = w->pid};

	return bpf_map_lookup_elem(&subrequests, &key);
}

/* Removes the entries of the subrequests of a request that ends. */
static __always_inline void subrequests_forget(struct worker *w, struct connection *conn)
{
	struct connection_key key = {.pid = w->pid};

	for (__u32 i = 0; i < SUBREQUESTS_MAX && i < conn->subrequests_seen; i++) {
		key.connection = conn->subrequests[i];
		bpf_map_delete_elem(&subrequests, &key);
	}
}

/*
 * The entry of a subrequest of the request in flight, which is created when it is first needed.
 * NULL: there are too many. Not inlined: it is called from where the verifier has much to follow.
 */
static __noinline struct subrequest_times *subrequest_join(struct worker *w,
							   struct connection *conn, __u64 r)
{
	struct connection_key key = {.connection = r};
	struct subrequest_times *sub;
	__u64 n;

	if (!w || !conn)
		return NULL;
	key.pid = w->pid;
	n = conn->subrequests_seen;
	for (__u32 i = 0; i < SUBREQUESTS_MAX && i < n; i++) {
		if (conn->subrequests[i] == r)
			return subrequest_find(w, r);
	}
	if (n >= SUBREQUESTS_MAX) {
		conn->subrequests_seen = SUBREQUESTS_MAX + 1;
		return NULL;
	}
	conn->subrequests_seen = n + 1;
	sub = entry_create(&subrequests, &key, BPF_ANY);
	barrier_var(n);
	conn->subrequests[n & (SUBREQUESTS_MAX - 1)] = sub ? r : 0;
	return sub;
}

/* The attempt that this socket works for. NULL: its request is no longer in flight. */
static __always_inline struct attempt_times *upstream_attempt(struct worker *w,
							      struct socket_state *s)
{
	struct subrequest_times *sub;
	struct connection *conn;

	if (!s->client)
		return NULL;
	conn = connection_find(w, s->client);
	if (!conn || conn->generation != s->generation)
		return NULL;
	if (!s->subrequest)
		return attempt_at(conn->attempts, s->slot, ATTEMPTS_MAX);
	sub = subrequest_find(w, s->subrequest);
	return sub ? attempt_at(sub->attempts, s->slot, SUBREQUEST_ATTEMPTS_MAX) : NULL;
}

/*
 * Where the attempt with this index is kept: with the request in flight, or with its subrequest
 * `r`. NULL: there are too many subrequests.
 */
static __always_inline struct attempt_times *attempt_find(struct worker *w, struct socket_state *s,
							  struct connection *conn, __u64 r,
							  __u32 index)
{
	struct subrequest_times *sub;

	if (r == conn->request) {
		s->slot = attempt_slot(index, ATTEMPTS_MAX);
		return attempt_at(conn->attempts, s->slot, ATTEMPTS_MAX);
	}
	sub = subrequest_join(w, conn, r);
	if (!sub)
		return NULL;
	s->subrequest = r;
	s->slot = attempt_slot(index, SUBREQUEST_ATTEMPTS_MAX);
	return attempt_at(sub->attempts, s->slot, SUBREQUEST_ATTEMPTS_MAX);
}

/*
 * Begins the attempt, unless it has begun already: a slot may still hold another one. w->peer is a
 * copy of the connection.
 */
static __always_inline void attempt_begin(struct worker *w, struct attempt_times *a,
					  struct socket_state *s, __u32 index)
{
	if (a->generation == s->generation && a->index == index)
		return;
	__builtin_memset(a, 0, sizeof(*a));
	a->generation = s->generation;
	a->index = index;
	a->flags = ATTEMPT_SEEN;
	a->connection = s->connection;
	a->number = OF_PEER(w, number);
	a->requests = OF_PEER(w, requests);
}

/*
 * Joins the socket with the attempt that `r` is at, which is the last of r->upstream_states:
 * ngx_http_upstream_connect() adds it before it connects. A subrequest has states of its own.
 * w->peer is a copy of the socket's ngx_connection_t.
 */
static __always_inline struct attempt_times *upstream_join(struct worker *w, struct socket_state *s,
							   struct ngx_http_request_s *r)
{
	struct ngx_http_request_s *main;
	struct attempt_times *a;
	struct connection *conn;
	bool failed = false;
	__u32 nelts;

	s->client = 0;
	s->subrequest = 0;
	if (!request_copy(w, r, NGX_END(r, main)))
		return NULL;
	main = OF_HEAD(w, main);
	nelts = NGX_READ(failed, OF_HEAD(w, upstream_states), nelts);
	if (failed || !nelts || (__u64)OF_HEAD(w, connection) == s->connection)
		return NULL;
	s->client = (__u64)OF_HEAD(w, connection);
	conn = connection_of(w, main, (void *)s->client);
	if (!conn)
		return NULL;
	s->generation = conn->generation;
	conn->request = (__u64)main;
	a = attempt_find(w, s, conn, (__u64)r, nelts - 1);
	if (a)
		attempt_begin(w, a, s, nelts - 1);
	else
		s->client = 0;
	return a;
}

/* The same after its connect, when c->data is the request. */
static __always_inline struct attempt_times *upstream_rejoin(struct worker *w,
							     struct socket_state *s)
{
	connection_copy(w, (void *)s->connection);
	return upstream_join(w, s, OF_PEER(w, data));
}

#endif
