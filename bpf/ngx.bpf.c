/* SPDX-License-Identifier: GPL-2.0-only */
/* The only translation unit: the programs. Each only calls the function that handles its event. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "arg.bpf.h"
#include "maps.bpf.h"
#include "request.bpf.h"
#include "syscall.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* The skeleton has the types of maps and variables: these variables add those that it lacks. */
const struct attempt unused_attempt = {};
const struct subrequest unused_subrequest = {};
const enum record_kind unused_record_kind = RECORD_REQUEST;
const enum lost_cause unused_lost_cause = LOST_CAUSES;
const enum request_flag unused_request_flag = REQUEST_ADOPTED;
const enum attempt_flag unused_attempt_flag = ATTEMPT_SEEN;
const enum text_flag unused_text_flag = TEXT_CUT;
const enum reg unused_reg = REG_AX;
const enum worker_flag unused_worker_flag = WORKER_FOLLOW;
const enum limit unused_limit = ATTEMPTS_MAX;

SEC("uprobe")
int init_connection(struct pt_regs *ctx)
{
	struct worker *w = current_worker();

	if (w)
		connection_opened(w, (void *)arg(ctx, bpf_get_attach_cookie(ctx), 0));
	return 0;
}

SEC("uprobe")
int send_output_queue(struct pt_regs *ctx)
{
	struct worker *w = current_worker();

	if (w)
		streams_output(w, (void *)arg(ctx, bpf_get_attach_cookie(ctx), 0));
	return 0;
}

SEC("uprobe")
int quic_output(struct pt_regs *ctx)
{
	struct worker *w = current_worker();

	if (w)
		w->quic = arg(ctx, bpf_get_attach_cookie(ctx), 0);
	return 0;
}

SEC("uprobe")
int quic_close(struct pt_regs *ctx)
{
	struct worker *w = current_worker();

	if (w)
		quic_closed(w, arg(ctx, bpf_get_attach_cookie(ctx), 0));
	return 0;
}

SEC("uprobe")
int free_request(struct pt_regs *ctx)
{
	struct worker *w = current_worker();
	__u64 cookie = bpf_get_attach_cookie(ctx);

	if (w)
		request_ended(w, (void *)arg(ctx, cookie, 0), (long)arg(ctx, cookie, 1));
	return 0;
}

/* Bytes on a socket: `ret` is what send() or recv() returns. */
static __always_inline int sent(struct sock *sk, int ret)
{
	struct worker *w;

	if (ret && (w = current_worker()))
		socket_sent(w, sk, 0, ret);
	return 0;
}

static __always_inline int received(struct sock *sk, int ret, int flags)
{
	struct worker *w;

	if (!(flags & MSG_PEEK) && (w = current_worker()))
		socket_received(w, sk, 0, ret);
	return 0;
}

/* One source of these: the kernel's tracepoints (Linux 6.5). */
SEC("tp_btf/sock_send_length")
int BPF_PROG(sock_send, struct sock *sk, int ret, int flags)
{
	return sent(sk, ret);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(sock_recv, struct sock *sk, int ret, int flags)
{
	return received(sk, ret, flags);
}

/* Another source: the kernel functions that call these tracepoints. */
SEC("fexit/inet_sendmsg")
int BPF_PROG(inet_sendmsg, struct socket *sock, void *msg, __u64 size, int ret)
{
	return sent(sock->sk, ret);
}

SEC("fexit/inet6_sendmsg")
int BPF_PROG(inet6_sendmsg, struct socket *sock, void *msg, __u64 size, int ret)
{
	return sent(sock->sk, ret);
}

SEC("fexit/unix_stream_sendmsg")
int BPF_PROG(unix_sendmsg, struct socket *sock, void *msg, __u64 size, int ret)
{
	return sent(sock->sk, ret);
}

/* sendfile() before Linux 6.5. */
SEC("fexit/inet_sendpage")
int BPF_PROG(inet_sendpage, struct socket *sock, void *page, int at, __u64 size, int flags, int ret)
{
	return sent(sock->sk, ret);
}

SEC("fexit/unix_stream_sendpage")
int BPF_PROG(unix_sendpage, struct socket *sock, void *page, int at, __u64 size, int flags, int ret)
{
	return sent(sock->sk, ret);
}

SEC("fexit/inet_recvmsg")
int BPF_PROG(inet_recvmsg, struct socket *sock, void *msg, __u64 size, int flags, int ret)
{
	return received(sock->sk, ret, flags);
}

SEC("fexit/inet6_recvmsg")
int BPF_PROG(inet6_recvmsg, struct socket *sock, void *msg, __u64 size, int flags, int ret)
{
	return received(sock->sk, ret, flags);
}

SEC("fexit/unix_stream_recvmsg")
int BPF_PROG(unix_recvmsg, struct socket *sock, void *msg, __u64 size, int flags, int ret)
{
	return received(sock->sk, ret, flags);
}

/* The last source, where the kernel supports neither: system calls. */
SEC("tp_btf/sys_exit")
int BPF_PROG(syscall_exit, struct pt_regs *regs, long ret)
{
	return syscall_ended(regs, ret);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(sock_state, struct sock *sk, int oldstate, int newstate)
{
	struct worker *w;

	if (newstate == TCP_SYN_SENT && (w = current_worker()))
		socket_connecting(w, sk);
	else if ((newstate == TCP_FIN_WAIT1 || newstate == TCP_LAST_ACK || newstate == TCP_CLOSE) &&
		 !by_descriptor && (w = current_worker()))
		socket_closing(w, sk);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(process_fork, struct task_struct *parent, struct task_struct *child)
{
	process_forked(parent, child);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task)
{
	process_executed(task);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	process_exited(task);
	return 0;
}
