/* SPDX-License-Identifier: GPL-2.0-only */
/* --metrics: the queues of nginx's listening sockets, which user space reads once a second. */
#ifndef NGX_BPF_LISTEN_BPF_H
#define NGX_BPF_LISTEN_BPF_H

#include "arrival.bpf.h"
#include "state.bpf.h"

/*
 * Writes an open file of a process to user space, if it is a TCP socket that listens. One of
 * Multipath TCP (`multipath`) has another protocol, and its queue is that of a socket below it.
 */
static __always_inline void listener_listed(struct seq_file *seq, struct file *file)
{
	struct listener listener = {};
	struct address peer = {};
	struct socket *socket;
	struct sock *sk;

	socket = file ? bpf_sock_from_file(file) : NULL;
	sk = socket ? BPF_CORE_READ(socket, sk) : NULL;
	if (!is_tcp(sk) || BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return;
	addresses_of(&listener.address, &peer, sk);
	listener.inode = BPF_CORE_READ(file, f_inode, i_ino);
	listener.waiting = BPF_CORE_READ(sk, sk_ack_backlog);
	listener.waiting_max = BPF_CORE_READ(sk, sk_max_ack_backlog);
	listener.drops = BPF_CORE_READ(sk, sk_drops.counter);
	bpf_seq_write(seq, &listener, sizeof(listener));
}

#endif
