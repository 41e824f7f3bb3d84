/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System calls that move bytes on sockets or close them, after they have returned: all that nginx
 * and its OpenSSL use.
 */
#ifndef NGX_BPF_SYSCALL_BPF_H
#define NGX_BPF_SYSCALL_BPF_H

#include "socket.bpf.h"
#include "worker.bpf.h"

#if defined(__TARGET_ARCH_x86)
/* arch/x86/entry/syscalls/syscall_64.tbl */
enum syscall {
	SYSCALL_READ = 0,
	SYSCALL_WRITE = 1,
	SYSCALL_CLOSE = 3,
	SYSCALL_READV = 19,
	SYSCALL_WRITEV = 20,
	SYSCALL_SENDFILE = 40,
	SYSCALL_SENDTO = 44,
	SYSCALL_RECVFROM = 45,
	SYSCALL_SENDMSG = 46,
	SYSCALL_RECVMSG = 47,
};

/* The registers that still hold the number and the arguments: the result has replaced one. */
#define SYSCALL_NUMBER(regs) ((regs)->orig_ax)
#define SYSCALL_FD(regs) ((regs)->di)
#define SYSCALL_ARG2(regs) ((regs)->dx)
#define SYSCALL_ARG3(regs) ((regs)->r10)
#elif defined(__TARGET_ARCH_arm64)
/* include/uapi/asm-generic/unistd.h */
enum syscall {
	SYSCALL_CLOSE = 57,
	SYSCALL_READ = 63,
	SYSCALL_WRITE = 64,
	SYSCALL_READV = 65,
	SYSCALL_WRITEV = 66,
	SYSCALL_SENDFILE = 71,
	SYSCALL_SENDTO = 206,
	SYSCALL_RECVFROM = 207,
	SYSCALL_SENDMSG = 211,
	SYSCALL_RECVMSG = 212,
};

#define SYSCALL_NUMBER(regs) ((regs)->syscallno)
#define SYSCALL_FD(regs) ((regs)->orig_x0)
#define SYSCALL_ARG2(regs) ((regs)->regs[2])
#define SYSCALL_ARG3(regs) ((regs)->regs[3])
#endif

enum syscall_kind {
	SYSCALL_OTHER,
	SYSCALL_SENDS,
	SYSCALL_RECEIVES,
	SYSCALL_CLOSES,
};

/* Any system call of any process: the number is checked first. */
static __always_inline enum syscall_kind syscall_kind(struct pt_regs *regs)
{
	switch ((__u32)SYSCALL_NUMBER(regs)) {
	case SYSCALL_WRITE:
	case SYSCALL_WRITEV:
	case SYSCALL_SENDFILE:
	case SYSCALL_SENDTO:
	case SYSCALL_SENDMSG:
		return SYSCALL_SENDS;
	case SYSCALL_RECVMSG:
	case SYSCALL_RECVFROM:
	case SYSCALL_READ:
	case SYSCALL_READV:
		return SYSCALL_RECEIVES;
	case SYSCALL_CLOSE:
		return SYSCALL_CLOSES;
	default:
		return SYSCALL_OTHER;
	}
}

/* The flags of a call that receives. */
static __always_inline __u32 flags_of(struct pt_regs *regs)
{
	switch ((__u32)SYSCALL_NUMBER(regs)) {
	case SYSCALL_RECVMSG:
		return SYSCALL_ARG2(regs);
	case SYSCALL_RECVFROM:
		return SYSCALL_ARG3(regs);
	default:
		return 0;
	}
}

static __always_inline int syscall_ended(struct pt_regs *regs, long ret)
{
	enum syscall_kind kind = syscall_kind(regs);
	struct worker *w = current_storage();
	__u32 fd = SYSCALL_FD(regs);
	struct sock *sk;

	if (!w)
		return 0;
	if (kind == SYSCALL_CLOSES) {
		descriptor_closed(w, fd);
		return 0;
	}
	sk = sock_of(fd);
	if (sk && kind == SYSCALL_SENDS && ret)
		socket_sent(w, sk, fd, ret);
	else if (sk && kind == SYSCALL_RECEIVES && !(flags_of(regs) & MSG_PEEK))
		socket_received(w, sk, fd, ret);
	return 0;
}

#endif
