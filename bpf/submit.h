/* SPDX-License-Identifier: GPL-2.0-only */
/* Records to user space: each request once, or counted as lost. */
#ifndef NGX_BPF_SUBMIT_H
#define NGX_BPF_SUBMIT_H

#include "maps.h"

/*
 * Wake the reader each time this much more is waiting; else it comes by itself, on its timer. A
 * wake-up is an interrupt: one a record would cost more than all else here.
 */
enum { WAKEUP_BYTES = RING_BYTES / 8 };

static __always_inline void request_lost(enum lost_cause cause)
{
	__sync_fetch_and_add(&counters.lost[cause], 1);
}

/* `draft` and, behind it, its tail. */
static __always_inline void request_submit(struct request_record *draft, __u64 tail_len)
{
	__u64 flags = BPF_RB_NO_WAKEUP;
	__u64 size = tail_len, waiting, taken;

	if (size > TAIL_BYTES) /* never: for the verifier */
		return request_lost(LOST_BAD_READ);
	size += sizeof(*draft);
	draft->kind = RECORD_REQUEST;
	draft->size = size;
	waiting = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);
	taken = (BPF_RINGBUF_HDR_SZ + size + 7) & ~7ULL;
	if (waiting / WAKEUP_BYTES != (waiting + taken) / WAKEUP_BYTES)
		flags = BPF_RB_FORCE_WAKEUP;
	if (waiting + taken > counters.waiting_max)
		counters.waiting_max = waiting + taken;
	if (bpf_ringbuf_output(&events, draft, size, flags))
		request_lost(LOST_RING_FULL);
}

#endif
