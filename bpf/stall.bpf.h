/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stalls: nginx has bytes to send, and the socket takes none until there is room again. A send that
 * is refused (EAGAIN) shows it. But mostly the socket takes a part, and nginx waits without trying
 * again: then the kernel has marked the socket (SOCK_NOSPACE). It also marks one that is nearly
 * full when it is polled. So nginx's memory has to show that nginx was waiting when it sends more.
 */
#ifndef NGX_BPF_STALL_BPF_H
#define NGX_BPF_STALL_BPF_H

#include "read.bpf.h"

/* Whether the kernel has marked the socket: it wakes nginx when there is room. */
static __always_inline bool is_marked(struct sock *sk)
{
	unsigned long flags =
		by_descriptor ? BPF_CORE_READ(sk, sk_socket, flags) : sk->sk_socket->flags;

	return flags & 1UL << SOCK_NOSPACE;
}

/*
 * Whether the timer of sends was set when nginx had last sent: it is while nginx waits for room, of
 * a client (send_timeout) and of an upstream (ngx_http_upstream_send_request()). Of a client it has
 * expired if limit_rate has kept nginx from sending until now, even if the socket was full: until
 * when it was full is not known then.
 */
static __always_inline bool has_send_timer(struct ngx_connection_s *c)
{
	struct ngx_event_s *ev = NGX_GET(c, write);

	return NGX_GET(ev, write) & NGX_EVENT_TIMER_SET;
}

/*
 * Whether nginx has waited for room in the socket since it last sent. A client's sendfile() that
 * sends a part also has an EAGAIN, which nginx does not see; that a part of the response was left
 * over (ngx_http_write_filter()) is asked only where no EAGAIN has shown it.
 */
static __always_inline bool was_waited_for(struct stall *stall, struct ngx_connection_s *c,
					   bool is_client)
{
	if (!is_client)
		return stall->is_sure || has_send_timer(c);
	return (stall->is_sure || NGX_GET(c, buffered) & NGX_CONNECTION_BUFFERED) &&
	       has_send_timer(c);
}

/*
 * Bytes were sent, or none could be: `ret` is what send() returned. Returns how long the stall was
 * that ends with these bytes.
 */
static __always_inline __u64 stall_update(struct stall *stall, struct ngx_connection_s *c,
					  struct sock *sk, bool is_client, int ret, __u64 now)
{
	__u64 since = stall->since_ns;

	if (ret == -EAGAIN) {
		stall->is_sure = 1;
		if (!since)
			stall->since_ns = now;
		return 0;
	}
	if (ret < 0)
		return 0;
	if (since && !was_waited_for(stall, c, is_client))
		since = 0;
	stall->is_sure = 0;
	stall->since_ns = is_marked(sk) ? now : 0;
	return since ? now - since : 0;
}

#endif
