/* SPDX-License-Identifier: GPL-2.0-only */
/* Which processes are traced: their fork, exec and exit. */
#ifndef NGX_BPF_WORKER_BPF_H
#define NGX_BPF_WORKER_BPF_H

#include "connection.bpf.h"

/* The storage of the current process. A thread of nginx's pools counts as its worker. */
static __always_inline struct worker *current_storage(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return bpf_task_storage_get(&workers, task->group_leader, NULL, 0);
}

/* The current process, if it is traced. */
static __always_inline struct worker *current_worker(void)
{
	struct worker *w = active ? current_storage() : NULL;

	return w && !(w->flags & WORKER_OTHER) ? w : NULL;
}

/* The inode that a process executes. It is compared, and never followed. */
static __always_inline __u64 program_of(struct task_struct *task)
{
	return (__u64)BPF_CORE_READ(task, mm, exe_file, f_inode);
}

/* The pid of a process in the tool's namespace: it has one in its own and in each above. 0: none.
 */
static __always_inline __u32 pid_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct upid number;

	for (__u32 level = 0; level < PID_NAMESPACES_MAX; level++) {
		if (level > BPF_CORE_READ(pid, level) ||
		    bpf_core_read(&number, sizeof(number), &pid->numbers[level]))
			break;
		if (BPF_CORE_READ(number.ns, ns.inum) == pid_namespace)
			return number.nr;
	}
	return 0;
}

/*
 * A master's children are traced: its workers, and helpers, which never end a request. Without
 * memory for one, or without its pid, user space tries again.
 */
static __always_inline void process_forked(struct task_struct *parent, struct task_struct *child)
{
	struct process_event event = {.kind = PROCESS_UNTRACED};
	struct worker *master, *w;

	if (child->pid != child->tgid) /* a thread */
		return;
	master = bpf_task_storage_get(&workers, parent->group_leader, NULL, 0);
	if (!master || !(master->flags & WORKER_FOLLOW))
		return;
	event.pid = pid_of(child);
	if (!event.pid) /* it is in no namespace that the tool sees */
		return;
	w = bpf_task_storage_get(&workers, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!w) {
		bpf_map_push_elem(&process_events, &event, BPF_EXIST);
		return;
	}
	w->layout = master->layout;
	w->binary = master->binary;
	w->container = master->container;
	w->limiters[0] = master->limiters[0];
	w->limiters[1] = master->limiters[1];
	w->program = program_of(child);
	w->pid = event.pid;
}

/*
 * nginx replaces its binary (USR2): the child that executes the new one is a master, too. Another
 * file may have another layout, so that user space reads it.
 */
static __always_inline void process_executed(struct task_struct *task)
{
	struct worker *w = bpf_task_storage_get(&workers, task, NULL, 0);
	struct process_event event = {.kind = PROCESS_EXECUTED};

	if (!w)
		return;
	w->flags = program_of(task) == w->program ? WORKER_FOLLOW : WORKER_OTHER;
	event.pid = w->pid;
	bpf_map_push_elem(&process_events, &event, BPF_EXIST);
}

/*
 * A process ends. User space removes its entries, since to walk whole maps takes too long here, and
 * reports its requests in flight that abandoned.bpf.h has left (src/attach/departed.rs). The
 * counter says that the event is there.
 */
static __always_inline void process_exited(struct task_struct *task)
{
	struct ended_record ended = {.kind = RECORD_WORKER_ENDED, .size = sizeof(ended)};
	struct process_event event = {.kind = PROCESS_ENDED, .ended_ns = bpf_ktime_get_ns()};
	struct worker *w;

	if (task->pid != task->tgid)
		return;
	w = bpf_task_storage_get(&workers, task, NULL, 0);
	if (!w)
		return;
	held_release(w, 0);
	turn_exited(task);
	ended.pid = w->pid;
	ring_output(&ended, sizeof(ended));
	event.pid = w->pid;
	event.container = w->container;
	bpf_map_push_elem(&process_events, &event, BPF_EXIST);
	__sync_fetch_and_add(&counters.ended_processes, 1);
}

/* Whether a process is a traced one that goes on. */
static __always_inline struct worker *live_worker(struct task_struct *task)
{
	if (task->flags & PF_EXITING)
		return NULL;
	return bpf_task_storage_get(&workers, task->group_leader, NULL, 0);
}

/* A socket of any process is destroyed. A traced process may be doing that itself. */
static __always_inline void sock_destroyed(struct sock *sk)
{
	struct socket_state *s = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	struct worker *w;

	if (!s)
		return;
	w = live_worker(bpf_get_current_task_btf());
	socket_destroyed(s, (__u64)sk, w && w->pid == s->pid);
}

/* Writes a process to user space, if it is traced and goes on. */
static __always_inline void task_listed(struct seq_file *seq, struct task_struct *task)
{
	struct traced_task traced = {};
	struct worker *w;

	if (!task || task->pid != task->tgid || task->flags & PF_EXITING)
		return;
	w = bpf_task_storage_get(&workers, task, NULL, 0);
	if (!w || w->flags & WORKER_OTHER)
		return;
	traced.pid = w->pid;
	traced.binary = w->binary;
	traced.container = w->container;
	bpf_seq_write(seq, &traced, sizeof(traced));
}

/* Writes a file that the tool itself has mapped to user space. */
static __always_inline void mapping_listed(struct seq_file *seq, struct task_struct *task,
					   struct vm_area_struct *vma)
{
	struct mapped_file mapped = {};

	if (!task || !vma || task->pid != task->tgid || pid_of(task) != tool_pid)
		return;
	mapped.start = vma->vm_start;
	mapped.inode = (__u64)BPF_CORE_READ(vma, vm_file, f_inode);
	if (mapped.inode)
		bpf_seq_write(seq, &mapped, sizeof(mapped));
}

#endif
