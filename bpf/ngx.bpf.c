/* SPDX-License-Identifier: GPL-2.0-only */
/* The only translation unit: the programs. Each only calls the function that handles its event. */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "abandoned.bpf.h"
#include "arg.bpf.h"
#include "listen.bpf.h"
#include "maps.bpf.h"
#include "request.bpf.h"
#include "syscall.bpf.h"
#include "wait.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* The skeleton has the types of maps and variables: these variables add those that it lacks. */
const struct attempt unused_attempt = {};
const struct subrequest unused_subrequest = {};
const struct place_record unused_place_record = {};
const struct ended_record unused_ended_record = {};
const struct blocked_record unused_blocked_record = {};
const enum record_kind unused_record_kind = RECORD_REQUEST;
const enum lost_cause unused_lost_cause = LOST_CAUSES;
const enum wait_kind unused_wait_kind = WAIT_KINDS;
const enum request_flag unused_request_flag = REQUEST_ADOPTED;
const enum attempt_flag unused_attempt_flag = ATTEMPT_SEEN;
const enum block_part unused_block_part = PART_NONE;
const enum text_flag unused_text_flag = TEXT_CUT;
const enum reg unused_reg = REG_AX;
const enum sample unused_sample = SAMPLE_IN;
const enum worker_flag unused_worker_flag = WORKER_FOLLOW;
const enum process_event_kind unused_process_event_kind = PROCESS_EXECUTED;
const struct traced_task unused_traced_task = {};
const struct mapped_file unused_mapped_file = {};
const struct listener unused_listener = {};
const struct connection_record unused_connection_record = {};
const enum close_state unused_close_state = CLOSE_HANDSHAKE;
const enum limit unused_limit = ATTEMPTS_MAX;

/*
 * The programs of a layout. They read nginx's memory, so that each layout has its own; the uprobes
 * of all binaries with that layout run the same ones.
 */

/*
 * The program of a uprobe. Since Linux 6.13 the kernel gives each large stack of a program of this
 * type memory of the CPU instead (a "private stack"). But a uprobe's program can be preempted, and
 * then a run for another worker would overwrite it. The kernel does not do so in a program with a
 * tail call, even one that the verifier removes: so each one has it. `handle` may use `w`, `ctx`
 * and `cookie`.
 */
#define UPROBE(name, handle)                                                                       \
	SEC("uprobe")                                                                              \
	int name(struct pt_regs *ctx)                                                              \
	{                                                                                          \
		struct worker *w = current_worker();                                               \
		__u64 cookie;                                                                      \
                                                                                                   \
		if (never)                                                                         \
			bpf_tail_call(ctx, NULL, 0);                                               \
		if (!w)                                                                            \
			return 0;                                                                  \
		cookie = bpf_get_attach_cookie(ctx);                                               \
		(void)cookie;                                                                      \
		handle;                                                                            \
		return 0;                                                                          \
	}

UPROBE(init_connection, client_opened(w, (void *)arg(ctx, cookie, 0)))
UPROBE(send_output_queue, streams_output(w, (void *)arg(ctx, cookie, 0)))
UPROBE(turn, turn_next(w))
UPROBE(quic_output, w->quic = arg(ctx, cookie, 0))
UPROBE(quic_close, quic_closed(w, arg(ctx, cookie, 0)))
UPROBE(wait_ended, request_woken(w, arg(ctx, cookie, 0), cookie >> 8 & 0xff, cookie >> 16 & 0xffff))
UPROBE(free_request, request_ended(w, (void *)arg(ctx, cookie, 0), (long)arg(ctx, cookie, 1),
				   landmark(ctx, cookie), PT_REGS_IP(ctx)))

/* Bytes on a socket: `ret` is what send() or recv() returns. */
static __always_inline int sent(struct sock *sk, int ret)
{
	struct worker *w = current_storage();

	if (w)
		socket_sent(w, sk, 0, ret);
	return 0;
}

static __always_inline int received(struct sock *sk, int ret)
{
	struct worker *w = current_storage();

	if (w)
		socket_received(w, sk, 0, ret);
	return 0;
}

/*
 * The programs of the kernel's events, each once for all traced processes. `NAME` is attached, and
 * calls `NAME_traced` of the layout of the process that it runs in.
 */
#define EVENT(section, name, is_wanted, handle, ...)                                               \
	SEC(section)                                                                               \
	int BPF_PROG(name, __VA_ARGS__)                                                            \
	{                                                                                          \
		struct worker *w;                                                                  \
                                                                                                   \
		if ((is_wanted) && (w = current_worker()))                                         \
			bpf_tail_call(ctx, &name##_layouts, w->layout);                            \
		return 0;                                                                          \
	}                                                                                          \
	SEC(section)                                                                               \
	int BPF_PROG(name##_traced, __VA_ARGS__)                                                   \
	{                                                                                          \
		return handle;                                                                     \
	}

/* One source of the bytes on sockets: the kernel's tracepoints (Linux 6.5). */
EVENT("tp_btf/sock_send_length", sock_send, ret, sent(sk, ret), struct sock *sk, int ret, int flags)
EVENT("tp_btf/sock_recv_length", sock_recv, !(flags & MSG_PEEK), received(sk, ret), struct sock *sk,
      int ret, int flags)

/* Another source: the kernel functions that call these tracepoints. */
EVENT("fexit/inet_sendmsg", inet_sendmsg, ret, sent(sock->sk, ret), struct socket *sock, void *msg,
      __u64 size, int ret)
EVENT("fexit/inet6_sendmsg", inet6_sendmsg, ret, sent(sock->sk, ret), struct socket *sock,
      void *msg, __u64 size, int ret)
EVENT("fexit/unix_stream_sendmsg", unix_sendmsg, ret, sent(sock->sk, ret), struct socket *sock,
      void *msg, __u64 size, int ret)
EVENT("fexit/inet_recvmsg", inet_recvmsg, !(flags & MSG_PEEK), received(sock->sk, ret),
      struct socket *sock, void *msg, __u64 size, int flags, int ret)
EVENT("fexit/inet6_recvmsg", inet6_recvmsg, !(flags & MSG_PEEK), received(sock->sk, ret),
      struct socket *sock, void *msg, __u64 size, int flags, int ret)
EVENT("fexit/unix_stream_recvmsg", unix_recvmsg, !(flags & MSG_PEEK), received(sock->sk, ret),
      struct socket *sock, void *msg, __u64 size, int flags, int ret)

/* sendfile() before Linux 6.5. */
EVENT("fexit/inet_sendpage", inet_sendpage, ret, sent(sock->sk, ret), struct socket *sock,
      void *page, int at, __u64 size, int flags, int ret)
EVENT("fexit/unix_stream_sendpage", unix_sendpage, ret, sent(sock->sk, ret), struct socket *sock,
      void *page, int at, __u64 size, int flags, int ret)

/* The last source, where the kernel supports neither: system calls. */
EVENT("tp_btf/sys_exit", syscall_exit, syscall_kind(regs) != SYSCALL_OTHER,
      syscall_ended(regs, ret), struct pt_regs *regs, long ret)

EVENT("tp_btf/inet_sock_set_state", sock_state, is_state_wanted(newstate),
      state_changed(sk, newstate), struct sock *sk, int oldstate, int newstate)

/* It is attached with --connections only, before sock_destroy, which removes the entry. */
EVENT("tp_btf/tcp_destroy_sock", sock_end, true, socket_ended(sk), struct sock *sk)

/*
 * The end of a process, where its memory is still there then: the layout's program reads the
 * requests in flight. process_exit is attached where it is not.
 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit_read, struct task_struct *task)
{
	struct worker *w = bpf_task_storage_get(&workers, task, NULL, 0);

	if (w && task->pid == task->tgid && !(w->flags & WORKER_OTHER))
		bpf_tail_call(ctx, &process_exit_read_layouts, w->layout);
	process_exited(task);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit_read_traced, struct task_struct *task)
{
	requests_abandoned(task);
	process_exited(task);
	return 0;
}

/* The programs of the kernel's events that read no memory of nginx. */

SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(sock_destroy, struct sock *sk)
{
	sock_destroyed(sk);
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

/* Only with --blocked: each time that any CPU goes on with another task. */
SEC("tp_btf/sched_switch")
int BPF_PROG(task_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	if (active) {
		task_left(ctx, prev, preempt);
		task_came(next);
	}
	return 0;
}

/* Only with --blocked: samples of the workers while they run. */
SEC("perf_event")
int sample(void *ctx)
{
	if (active)
		turn_sampled(ctx);
	return 0;
}

/* What user space asks for. */

SEC("iter/task")
int traced_tasks(struct bpf_iter__task *ctx)
{
	task_listed(ctx->meta->seq, ctx->task);
	return 0;
}

SEC("iter/task_vma")
int mapped_files(struct bpf_iter__task_vma *ctx)
{
	mapping_listed(ctx->meta->seq, ctx->task, ctx->vma);
	return 0;
}

/* Only with --metrics, and where the kernel lets a process be chosen. */
SEC("iter/task_file")
int listeners(struct bpf_iter__task_file *ctx)
{
	listener_listed(ctx->meta->seq, ctx->file);
	return 0;
}
