/* SPDX-License-Identifier: GPL-2.0-only */
/* Which processes are traced: their fork, exec and exit. */
#ifndef NGX_BPF_WORKER_BPF_H
#define NGX_BPF_WORKER_BPF_H

#include "connection.bpf.h"

/* The current process, if it is traced. A thread of nginx's pools counts as its worker. */
static __always_inline struct worker *current_worker(void)
{
	struct task_struct *task;
	struct worker *w;

	if (!active)
		return NULL;
	task = bpf_get_current_task_btf();
	w = bpf_task_storage_get(&workers, task->group_leader, NULL, 0);
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

/* A master's children are traced: its workers, and helpers, which never end a request. */
static __always_inline void process_forked(struct task_struct *parent, struct task_struct *child)
{
	struct worker *master, *w;

	if (child->pid != child->tgid) /* a thread */
		return;
	master = bpf_task_storage_get(&workers, parent->group_leader, NULL, 0);
	if (!master || !(master->flags & WORKER_FOLLOW))
		return;
	w = bpf_task_storage_get(&workers, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!w) {
		__sync_fetch_and_add(&counters.untraced_processes, 1);
		return;
	}
	w->pid = pid_of(child);
	w->program = program_of(child);
}

/*
 * nginx replaces its binary (USR2): the child that executes the new one is a master, too. Another
 * file has another layout, so that user space has to load another object for it.
 */
static __always_inline void process_executed(struct task_struct *task)
{
	struct worker *w = bpf_task_storage_get(&workers, task, NULL, 0);

	if (!w)
		return;
	w->flags = program_of(task) == w->program ? WORKER_FOLLOW : WORKER_OTHER;
	bpf_map_push_elem(&upgrades, &w->pid, BPF_EXIST);
}

/* Submits the records of a process that ends, and removes the keys of its streams. */
static __always_inline void streams_forget(struct worker *w)
{
	__u32 pid = w->pid;

	if (!knows_quic())
		return;
	held_release(w, 0);
	bpf_for_each_map_elem(&quic_streams, forget_if_of, &pid, 0);
}

/* A process ends. */
static __always_inline void process_exited(struct task_struct *task)
{
	struct worker *w;

	if (task->pid != task->tgid)
		return;
	w = bpf_task_storage_get(&workers, task, NULL, 0);
	if (!w)
		return;
	streams_forget(w);
	connections_forget(w->pid);
}

#endif
