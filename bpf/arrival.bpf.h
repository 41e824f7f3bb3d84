/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When the kernel had what nginx reads later: a connection before it is accepted, and bytes before
 * they are read.
 */
#ifndef NGX_BPF_ARRIVAL_BPF_H
#define NGX_BPF_ARRIVAL_BPF_H

#include "config.bpf.h"
#include "kernel.bpf.h"

enum {
	/*
	 * The kernel notes an arrival by its timer. A shorter wait cannot be distinguished from
	 * none.
	 */
	WAIT_TICKS_MIN = 3,
	/* Longer than any wait: the counter has 32 bits. */
	WAIT_TICKS_MAX = 1 << 30,
};

static __always_inline bool is_tcp(struct sock *sk)
{
	return sk && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
}

/*
 * When the connection of a TCP socket that nginx has just accepted was established; 0: not known.
 * tcp_init_transfer() notes it in microseconds of CLOCK_MONOTONIC, and it changes when bytes are
 * read for the first time.
 */
static __always_inline __u64 established_ns(struct sock *sk)
{
	return is_tcp(sk) ? BPF_CORE_READ((struct tcp_sock *)sk, rcvq_space.time) * 1000 : 0;
}

/*
 * How long the last bytes that a TCP socket has received were there when they were read, since
 * `from` at most, and to a tick of the kernel's timer. 0: shorter, or not known.
 */
static __always_inline __u64 lain_ns(struct sock *sk, __u64 from, __u64 now)
{
	__u64 min_ns = WAIT_TICKS_MIN * (__u64)tick_ns, ns;
	__u32 ticks;

	if (!tick_ns || now - from < min_ns || !is_tcp(sk))
		return 0;
	ticks = bpf_jiffies64();
	ticks -= BPF_CORE_READ((struct inet_connection_sock *)sk, icsk_ack.lrcvtime);
	if (ticks < WAIT_TICKS_MIN || ticks > WAIT_TICKS_MAX)
		return 0;
	ns = ticks * (__u64)tick_ns;
	return ns < now - from ? ns : now - from;
}
#endif
