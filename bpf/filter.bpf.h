/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The filters by numbers: status, duration, sample. A request that they rule out takes no room in
 * the ring buffer. Filters by texts are in src/pipeline/filter.rs.
 */
#ifndef NGX_BPF_FILTER_BPF_H
#define NGX_BPF_FILTER_BPF_H

#include "config.bpf.h"

/* How often the sample was asked. */
__u64 asked = 0;

/*
 * Whether one more request is in the sample. The number is read before it is incremented, since
 * arm64 cannot do both at once before Linux 5.18: two workers may rarely read the same number.
 */
static __always_inline bool is_of_sample(void)
{
	__u64 nth = asked;

	if (filter_sample < 2)
		return true;
	__sync_fetch_and_add(&asked, 1);
	return nth % filter_sample == 0;
}

static __always_inline bool has_status(const struct request_record *d)
{
	__u32 word = d->status / 64;

	return !filter_by_status ||
	       (word < STATUS_WORDS && filter_statuses[word] >> (d->status % 64) & 1);
}

/*
 * Whether the request took long enough, from its first byte to its end. A request whose first byte
 * was not seen does not pass.
 */
static __always_inline bool has_duration(const struct request_record *d)
{
	if (!filter_min_duration_ns)
		return true;
	return !(d->flags & (REQUEST_UNTRACED | REQUEST_ADOPTED)) && d->request_first_ns &&
	       d->ended_ns >= d->request_first_ns &&
	       d->ended_ns - d->request_first_ns >= filter_min_duration_ns;
}

#endif
