/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bounded walks along lists of nginx. A step is an element of the map `steps`, since bpf_loop()
 * came with Linux 5.17 only.
 *
 * The verifier of Linux 7.3 repeats a step until it finds no new state, and values that nothing
 * depends on count as a difference. So a step has few paths of its own. What has many is in a
 * global function (not static), which the verifier follows once, and not as a part of the step.
 */
#ifndef NGX_BPF_WALK_BPF_H
#define NGX_BPF_WALK_BPF_H

#include "maps.bpf.h"

/*
 * Defines walk_NAME(context): it calls NAME(context, index) with index 0 to max - 1, until that
 * returns false. The context is what the steps share, and is on the caller's stack.
 */
#define DEFINE_WALK(name, context, max)                                                            \
	_Static_assert((max) <= STEPS_MAX, "a walk has as many steps as the map has elements");    \
	static long name##_step(struct bpf_map *map, const __u32 *step, void *value,               \
				context *walk)                                                     \
	{                                                                                          \
		return *step >= (max) || !name(walk, *step);                                       \
	}                                                                                          \
	static __always_inline void walk_##name(context *walk)                                     \
	{                                                                                          \
		bpf_for_each_map_elem(&steps, name##_step, walk, 0);                               \
	}

#endif
