/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --tcp: what the kernel counts of the TCP connections of a request, over the whole life of each.
 * The client's is read when the request ends: nginx still has it then. An upstream's may be closed
 * by then, or serve another request. So it is read at each of its events, of which the last one
 * counts.
 */
#ifndef NGX_BPF_TCP_BPF_H
#define NGX_BPF_TCP_BPF_H

#include "arrival.bpf.h"
#include "attempt.bpf.h"

/* include/linux/tcp.h: what keeps a connection from sending; a connection has one at a time. */
enum {
	TCP_CHRONO_RWND_LIMITED = 2,
	TCP_CHRONO_BITS = 3, /* the bits of tp->chrono_type in its byte: the first ones */
};

/*
 * How long the peer's window has limited a connection, in ticks of the kernel's timer:
 * tcp_get_info_chrono_stats(). The sum does not contain what is under way.
 */
static __always_inline __u32 rwnd_limited_ticks(struct tcp_sock *tp)
{
	__u32 ticks = 0, start = BPF_CORE_READ(tp, chrono_start);
	bool is_limited;

	if (!bpf_core_field_exists(tp->chrono_type))
		return 0;
	is_limited = (BPF_CORE_READ(tp, chrono_type) & TCP_CHRONO_BITS) == TCP_CHRONO_RWND_LIMITED;
	bpf_core_read(&ticks, sizeof(ticks), &tp->chrono_stat[TCP_CHRONO_RWND_LIMITED - 1]);
	/* It is not under way any more if it has ended meanwhile, on another CPU. */
	if (is_limited && start == BPF_CORE_READ(tp, chrono_start))
		ticks += (__u32)bpf_jiffies64() - start;
	return ticks;
}

/* Reads the numbers of a socket. Only the window is 0 if it is not TCP. */
static __always_inline void tcp_measure(struct tcp_numbers *numbers, struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	numbers->cwnd = 0;
	if (!is_tcp(sk))
		return;
	numbers->srtt_us = BPF_CORE_READ(tp, srtt_us);
	numbers->retransmits = BPF_CORE_READ(tp, total_retrans);
	numbers->cwnd = BPF_CORE_READ(tp, snd_cwnd);
	numbers->rwnd_limited_ns = rwnd_limited_ticks(tp) * (__u64)tick_ns;
}

/*
 * An event on an upstream's socket. The next attempt of the request overwrites what was read of
 * this one.
 */
static __always_inline void upstream_measure(struct worker *w, struct socket_state *s,
					     struct sock *sk)
{
	struct attempt_times *a;
	struct connection *conn;

	if (!with_tcp || s->subrequest)
		return;
	a = upstream_attempt(w, s);
	conn = a ? connection_find(w, s->client) : NULL;
	if (!conn || a->connection != s->connection)
		return;
	conn->upstream_tcp.index = a->index;
	tcp_measure(&conn->upstream_tcp, sk);
}

/* `conn` is NULL where nothing is known of the connection. */
__noinline int draft_tcp(struct scratch *s, struct connection *conn)
{
	if (!with_tcp || !s)
		return 0;
	tcp_measure(&s->held.draft.client_tcp, sock_of(OF_CONNECTION(s, fd)));
	if (conn)
		s->held.draft.upstream_tcp = conn->upstream_tcp;
	return 0;
}

#endif
