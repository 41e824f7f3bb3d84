/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memory that is used while a request ends. Each CPU has a scratch of its own. But since Linux
 * 6.0 a uprobe's program can be preempted, though it does not move to another CPU, and another
 * worker's request may end there meanwhile: then that run takes one of the spares.
 */
#ifndef NGX_BPF_SCRATCH_BPF_H
#define NGX_BPF_SCRATCH_BPF_H

#include "submit.bpf.h"

enum { NO_SCRATCH = -1 };

/*
 * Claims a scratch, unless it is taken. A kernel that cannot exchange values is older than 6.0:
 * nothing but this run uses its CPU's scratch, and no spare is needed.
 */
static __always_inline bool is_claimed(__u32 index)
{
	struct scratch *s = bpf_map_lookup_elem(&scratches, &index);

	if (!s)
		return false;
	if (!can_exchange())
		return index >= SCRATCH_SPARES;
	return !__sync_val_compare_and_swap(&s->is_taken, 0, 1);
}

/*
 * Claims a scratch, and returns its index; NO_SCRATCH: all are taken. It is global (not static), so
 * that the verifier does not follow what comes next for each of them.
 */
__noinline int scratch_claim(void)
{
	__u32 index = SCRATCH_SPARES + bpf_get_smp_processor_id();

	if (is_claimed(index))
		return index;
	for (index = 0; index < SCRATCH_SPARES; index++) {
		if (is_claimed(index))
			return index;
	}
	return NO_SCRATCH;
}

/* The exchange orders memory: whatever was written to the scratch is written before it is free. */
static __always_inline void scratch_release(struct scratch *s)
{
	if (can_exchange())
		__sync_lock_test_and_set(&s->is_taken, 0);
}

#endif
