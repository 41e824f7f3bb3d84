/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Turns of a worker's event loop, and workers that do not come back to it (--blocked).
 *
 * nginx calls ngx_process_events_and_timers() once a turn: it waits with epoll, and then handles
 * all that has happened. So a turn begins at its entry or, if the worker slept in epoll_wait(),
 * when it could run again; and it ends at the next entry. What happens in between shows where the
 * kernel takes the worker off its CPU.
 */
#ifndef NGX_BPF_TURN_BPF_H
#define NGX_BPF_TURN_BPF_H

#include "arrival.bpf.h"
#include "submit.bpf.h"

#if defined(__TARGET_ARCH_x86)
/* arch/x86/entry/syscalls/syscall_64.tbl */
enum { EPOLL_WAIT = 232, EPOLL_PWAIT = 281, EPOLL_PWAIT2 = 441 };

#define CALL_OF(regs) BPF_CORE_READ(regs, orig_ax)
#define STACK_OF(snapshot) ((snapshot)->registers[19])
#define REGISTER_WORDS 21
#elif defined(__TARGET_ARCH_arm64)
/* include/uapi/asm-generic/unistd.h, which has no epoll_wait() */
enum { EPOLL_WAIT = 22, EPOLL_PWAIT = 22, EPOLL_PWAIT2 = 441 };

#define CALL_OF(regs) ((__u64)BPF_CORE_READ(regs, syscallno))
#define STACK_OF(snapshot) ((snapshot)->registers[31])
#define REGISTER_WORDS 34
#endif

/* The turn of a task; NULL: it is no worker, or nothing was seen of its turns. */
static __always_inline struct turn *turn_of(struct task_struct *task)
{
	return blocked_min_ns ? bpf_task_storage_get(&turns, task, NULL, 0) : NULL;
}

/* The same of any task of the machine: most are the kernel's own, or idle. */
static __always_inline struct turn *turn_of_any(struct task_struct *task)
{
	return task->mm ? turn_of(task) : NULL;
}

/* How long a task has waited for a CPU so far, since it was made. */
static __always_inline __u64 run_delay_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, sched_info.run_delay);
}

/* Whether a task that sleeps is in the system call with which nginx waits for events. */
static __always_inline bool is_in_epoll(struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	__u64 call = CALL_OF(regs);

	return call == EPOLL_WAIT || call == EPOLL_PWAIT || call == EPOLL_PWAIT2;
}

/*
 * Why a task leaves its CPU. Its state may show that it is being woken again already; what kind of
 * a sleep it was is not known then, and it was short.
 */
static __always_inline enum off_cpu why_off(struct task_struct *task, bool preempt)
{
	__u32 state = task->__state;

	if (preempt || !state)
		return OFF_RUNNABLE;
	if (state & TASK_UNINTERRUPTIBLE)
		return OFF_IO;
	if ((state & (TASK_INTERRUPTIBLE | TASK_WAKING)) && is_in_epoll(task))
		return OFF_IDLE;
	return OFF_SLEEP;
}

/* Begins a turn. */
static __always_inline void turn_begin(struct turn *t, __u64 now)
{
	t->since_ns = now;
	t->io_ns = t->runqueue_ns = t->sleep_ns = 0;
	t->longest.part_ns = 0;
	__builtin_memset(&t->waiters, 0, sizeof(t->waiters));
}

/* Nothing is known of where the worker was. */
static __always_inline void snapshot_clear(struct snapshot *snapshot)
{
	snapshot->kernel_len = snapshot->stack_len = 0;
}

/*
 * Keeps the last snapshot if it is of the longest part so far. Short parts are left out, since to
 * copy a snapshot takes its time.
 */
static __always_inline void part_end(struct turn *t, enum block_part part, __u64 ns)
{
	if (ns <= t->longest.part_ns || ns < blocked_min_ns / PARTS_OF_BLOCK)
		return;
	bpf_probe_read_kernel(&t->longest, sizeof(t->longest), &t->last);
	t->longest.part = part;
	t->longest.part_ns = ns;
}

/*
 * The worker runs again: adds the time in which it did not. How long it has waited for a CPU, since
 * it was woken or preempted, is known only now.
 */
static __always_inline void turn_settle(struct turn *t, struct task_struct *task)
{
	__u64 off_ns = t->came_ns - t->left_ns, delay_ns = run_delay_of(task) - t->delay_ns;
	enum off_cpu off = t->off;

	t->off = OFF_NOT;
	if (off == OFF_NOT || t->came_ns < t->left_ns)
		return;
	if (off == OFF_RUNNABLE || delay_ns > off_ns)
		delay_ns = off_ns;
	off_ns -= delay_ns;
	t->runqueue_ns += delay_ns;
	if (off == OFF_IDLE) {
		t->since_ns -= delay_ns;
		snapshot_clear(&t->last); /* it was about to run */
	} else if (off == OFF_IO) {
		t->io_ns += off_ns;
		part_end(t, PART_IO, off_ns);
	} else if (off == OFF_SLEEP) {
		t->sleep_ns += off_ns;
		part_end(t, PART_SLEEP, off_ns);
	}
	part_end(t, PART_RUNQUEUE, delay_ns);
}

/* Copies the innermost part of the current task's own stack. */
static __always_inline void stack_copy(struct snapshot *snapshot, struct task_struct *task)
{
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
	void *from;

	snapshot->stack_len = 0;
	if (bpf_probe_read_kernel(snapshot->registers, REGISTER_WORDS * 8, regs))
		return;
	from = (void *)STACK_OF(snapshot);
	if (!bpf_probe_read_user(snapshot->stack, STACK_BYTES_MAX, from))
		snapshot->stack_len = STACK_BYTES_MAX;
	else if (!bpf_probe_read_user(snapshot->stack, STACK_BYTES_MAX / 4, from))
		snapshot->stack_len = STACK_BYTES_MAX / 4;
}

/* Notes where the current task is. */
static __always_inline void snapshot_take(void *ctx, struct snapshot *snapshot,
					  struct task_struct *task)
{
	long bytes = bpf_get_stack(ctx, snapshot->kernel, sizeof(snapshot->kernel), 0);

	snapshot->kernel_len = bytes > 0 ? (__u64)bytes / 8 : 0;
	stack_copy(snapshot, task);
}

/* Since when the current task, which is settled, has run within this turn. */
static __always_inline __u64 running_since(struct turn *t)
{
	return t->came_ns > t->since_ns ? t->came_ns : t->since_ns;
}

/* The worker has run until now. The last snapshot is of that time, or shows nothing. */
static __always_inline void part_end_run(struct turn *t, __u64 now)
{
	__u64 from = running_since(t);

	if (t->seen_ns < from)
		snapshot_clear(&t->last);
	if (now > from)
		part_end(t, PART_CPU, now - from);
}

/* Submits the record of the last time that the worker was away for long. */
static __always_inline void blocked_submit(struct turn *t)
{
	t->has_backlog = 0;
	if (!ring_output(&t->blocked, sizeof(t->blocked)))
		__sync_fetch_and_add(&counters.blocked_lost, 1);
}

/* A task leaves its CPU, and is the current one still. */
static __always_inline void task_left(void *ctx, struct task_struct *task, bool preempt)
{
	struct turn *t = turn_of_any(task);
	__u64 now;

	if (!t)
		return;
	now = bpf_ktime_get_ns();
	turn_settle(t, task);
	t->off = why_off(task, preempt);
	t->left_ns = now;
	t->delay_ns = run_delay_of(task);
	if (t->off == OFF_IDLE) {
		t->has_idled = 1;
		if (t->has_backlog)
			blocked_submit(t);
		return;
	}
	if (!t->since_ns)
		return;
	/*
	 * Where it goes to sleep does not say where it has run. Where it is preempted does, but is
	 * often a place that wakes others; so a sample is better.
	 */
	if (t->off != OFF_RUNNABLE || t->seen_ns >= running_since(t)) {
		part_end_run(t, now);
		snapshot_take(ctx, &t->last, task);
	} else {
		snapshot_take(ctx, &t->last, task);
		t->seen_ns = now;
		part_end_run(t, now);
	}
}

/*
 * A sample of the current task, which runs. The timer has interrupted it: in nginx, in the kernel,
 * or in turn_next(), but not in task_left() or task_came(), since these run with interrupts off.
 */
static __always_inline void turn_sampled(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct turn *t = turn_of(task);
	__u64 now = bpf_ktime_get_ns(), from;

	if (!t || t->is_changing || !t->since_ns)
		return;
	/* What is shorter is not kept. */
	from = running_since(t);
	if (now < from || now - from < blocked_min_ns / PARTS_OF_BLOCK)
		return;
	/* The last snapshot may be that of how it left its CPU before. */
	turn_settle(t, task);
	snapshot_take(ctx, &t->last, task);
	t->seen_ns = now;
}

/*
 * A task gets a CPU, and is not the current one yet. The kernel adds how long it has waited for
 * the CPU after this.
 */
static __always_inline void task_came(struct task_struct *task)
{
	struct turn *t = turn_of_any(task);
	__u64 now;

	if (!t)
		return;
	now = bpf_ktime_get_ns();
	if (!t->left_ns && is_in_epoll(task)) {
		/* It has slept since before it was traced, and it is not known since when. */
		t->left_ns = 1;
		t->off = OFF_IDLE;
		t->delay_ns = run_delay_of(task);
		t->has_idled = 1;
	}
	t->came_ns = now;
	if (t->off == OFF_IDLE)
		turn_begin(t, now);
}

/*
 * Whether the worker has ever had a connection. nginx's other processes have the same event loop,
 * and are away from it for long by design (the loader of the cache).
 */
static __always_inline bool is_serving(struct worker *w)
{
	return w->accepted || w->generation;
}

/* The worker was away for long. The record waits for those who have waited. */
static __always_inline void turn_blocked(struct worker *w, struct turn *t, __u64 now)
{
	struct blocked_record *b = &t->blocked;

	if (t->has_backlog)
		blocked_submit(t);
	part_end_run(t, now);
	b->kind = RECORD_BLOCKED;
	b->size = sizeof(*b);
	b->began_ns = t->since_ns;
	b->ended_ns = now;
	b->io_ns = t->io_ns;
	b->runqueue_ns = t->runqueue_ns;
	b->sleep_ns = t->sleep_ns;
	b->waiters = t->waiters;
	b->pid = w->pid;
	b->container = w->container;
	bpf_probe_read_kernel(&b->longest, sizeof(b->longest), &t->longest);
	t->has_backlog = 1;
	t->turns = 0;
}

/* ngx_process_events_and_timers() is entered: a turn ends, and the next one begins. */
static __always_inline void turn_next(struct worker *w)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct turn *t = bpf_task_storage_get(&turns, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	__u64 now = bpf_ktime_get_ns();

	if (!t)
		return;
	t->is_changing = 1;
	barrier();
	turn_settle(t, task);
	if (t->since_ns && t->has_idled && now - t->since_ns >= blocked_min_ns && is_serving(w))
		turn_blocked(w, t, now);
	else if (t->has_backlog && ++t->turns >= BACKLOG_TURNS_MAX)
		blocked_submit(t);
	turn_begin(t, now);
	barrier();
	t->is_changing = 0;
}

/*
 * Adds a request that waited from `from` to `to`, as far as the worker was away then: from `began`
 * to `ended`.
 */
static __always_inline void waiters_add(struct waiters *waiters, __u64 from, __u64 to, __u64 began,
					__u64 ended)
{
	__u64 ns;

	if (from < began)
		from = began;
	if (to > ended)
		to = ended;
	ns = from < to ? to - from : 0;
	/* As for the waits of requests: less cannot be distinguished from none. */
	if (ns < WAIT_TICKS_MIN * (__u64)tick_ns)
		return;
	waiters->requests++;
	waiters->ns += ns;
	if (waiters->max_ns < ns)
		waiters->max_ns = ns;
}

/*
 * Bytes lay in a socket for so long until nginx reads them now, or a connection until nginx accepts
 * it: they may have waited for a worker that was away.
 */
static __always_inline void turn_waited(__u64 ns, __u64 now)
{
	struct turn *t = ns ? turn_of(bpf_get_current_task_btf()) : NULL;

	if (!t)
		return;
	if (t->since_ns)
		waiters_add(&t->waiters, now - ns, now, t->since_ns, now);
	if (t->has_backlog)
		waiters_add(&t->blocked.waiters, now - ns, now, t->blocked.began_ns,
			    t->blocked.ended_ns);
}

/* A process ends. */
static __always_inline void turn_exited(struct task_struct *task)
{
	struct turn *t = turn_of(task);

	if (t && t->has_backlog)
		blocked_submit(t);
}

#endif
