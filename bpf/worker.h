/* SPDX-License-Identifier: GPL-2.0-only */
/* The traced processes: which they are, and those they start. */
#ifndef NGX_BPF_WORKER_H
#define NGX_BPF_WORKER_H

#include "connection.h"

/* The current process, when it is traced. nginx's thread pools count as their worker. */
static __always_inline struct worker *current_worker(void)
{
	struct task_struct *task;

	if (!active)
		return NULL;
	task = bpf_get_current_task_btf();
	return bpf_task_storage_get(&workers, task->group_leader, NULL, 0);
}

/* A master's children are its workers; its other helpers never end a request. */
static __always_inline void process_forked(struct task_struct *parent, struct task_struct *child)
{
	struct worker *master, *w;

	if (child->pid != child->tgid) /* a thread */
		return;
	master = bpf_task_storage_get(&workers, parent->group_leader, NULL, 0);
	if (!master || !(master->flags & WORKER_FOLLOW))
		return;
	w = bpf_task_storage_get(&workers, child, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (w)
		w->pid = child->tgid;
	else
		__sync_fetch_and_add(&counters.untraced_processes, 1);
}

/* nginx replaces its binary (USR2): the child that executes the new one is a master itself. */
static __always_inline void process_executed(struct task_struct *task)
{
	struct worker *w = bpf_task_storage_get(&workers, task, NULL, 0);

	if (!w)
		return;
	w->flags |= WORKER_FOLLOW;
	__sync_fetch_and_add(&counters.executed, 1);
}

static __always_inline void process_exited(struct task_struct *task)
{
	struct worker *w;

	if (task->pid != task->tgid)
		return;
	w = bpf_task_storage_get(&workers, task, NULL, 0);
	if (w)
		connections_forget(w->pid);
}

#endif
