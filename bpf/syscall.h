/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * System calls that move bytes on sockets, or close them, when they have returned: those that
 * nginx makes, and OpenSSL in it.
 */
#ifndef NGX_BPF_SYSCALL_H
#define NGX_BPF_SYSCALL_H

#include "socket.h"
#include "worker.h"

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

/* Where the number and the arguments still are: the result has taken the place of one of them. */
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

static __always_inline int syscall_sent(struct pt_regs *regs, long ret)
{
	struct worker *w = current_worker();
	__u32 fd = SYSCALL_FD(regs);
	struct sock *sk;

	if (w && ret && (sk = sock_of(fd)))
		socket_sent(w, sk, fd, ret);
	return 0;
}

static __always_inline int syscall_received(struct pt_regs *regs, long ret, __u32 flags)
{
	struct worker *w = current_worker();
	__u32 fd = SYSCALL_FD(regs);
	struct sock *sk;

	if (w && !(flags & MSG_PEEK) && (sk = sock_of(fd)))
		socket_received(w, sk, fd, ret);
	return 0;
}

static __always_inline int syscall_closed(struct pt_regs *regs)
{
	struct worker *w = current_worker();

	if (w)
		descriptor_closed(w, SYSCALL_FD(regs));
	return 0;
}

/* Any system call of any process: the number says first whether it is worth a look. */
static __always_inline int syscall_ended(struct pt_regs *regs, long ret)
{
	switch (SYSCALL_NUMBER(regs)) {
	case SYSCALL_WRITE:
	case SYSCALL_WRITEV:
	case SYSCALL_SENDFILE:
	case SYSCALL_SENDTO:
	case SYSCALL_SENDMSG:
		return syscall_sent(regs, ret);
	case SYSCALL_READ:
	case SYSCALL_READV:
		return syscall_received(regs, ret, 0);
	case SYSCALL_RECVMSG:
		return syscall_received(regs, ret, SYSCALL_ARG2(regs));
	case SYSCALL_RECVFROM:
		return syscall_received(regs, ret, SYSCALL_ARG3(regs));
	case SYSCALL_CLOSE:
		return syscall_closed(regs);
	}
	return 0;
}

#endif
