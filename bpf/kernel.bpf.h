/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's structs: from a descriptor to its socket, and from a socket to its addresses and to
 * nginx. */
#ifndef NGX_BPF_KERNEL_BPF_H
#define NGX_BPF_KERNEL_BPF_H

#include "wire.h"

/* The open file of a descriptor of the current process; NULL: none. */
static __always_inline struct file *file_of(__u32 fd)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *table = BPF_CORE_READ(task, files, fdt);
	struct file **files = BPF_CORE_READ(table, fd), *file = NULL;

	if (fd < BPF_CORE_READ(table, max_fds))
		bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

/* The socket of a descriptor; NULL: none. */
static __always_inline struct sock *sock_of(__u32 fd)
{
	struct file *file = file_of(fd);
	struct socket *sock = BPF_CORE_READ(file, private_data);

	return file && BPF_CORE_READ(sock, file) == file ? BPF_CORE_READ(sock, sk) : NULL;
}

/*
 * Both ends of a socket. The families stay 0 if it is neither IPv4 nor IPv6, and a port stays 0 if
 * it is not known.
 */
static __always_inline void addresses_of(struct address *local, struct address *peer,
					 struct sock *sk)
{
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	if (family == AF_INET) {
		bpf_core_read(local->bytes, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_core_read(peer->bytes, 4, &sk->__sk_common.skc_daddr);
	} else if (family == AF_INET6) {
		bpf_core_read(local->bytes, 16, &sk->__sk_common.skc_v6_rcv_saddr);
		bpf_core_read(peer->bytes, 16, &sk->__sk_common.skc_v6_daddr);
	} else {
		return;
	}
	local->family = peer->family = family;
	local->port = BPF_CORE_READ(sk, __sk_common.skc_num);
	/* After a reset it is 0 (inet_put_port()), but the other copy is still there. */
	if (!local->port)
		local->port = bpf_ntohs(BPF_CORE_READ((struct inet_sock *)sk, inet_sport));
	peer->port = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/*
 * The ngx_connection_t that nginx has registered with epoll for this socket. Bit 0 of the pointer
 * is an instance bit: ngx_epoll_add_connection(), ngx_epoll_add_event(). 0: not in any epoll set.
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

#endif
