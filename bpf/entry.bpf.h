/* SPDX-License-Identifier: GPL-2.0-only */
/* New entries of hash maps. */
#ifndef NGX_BPF_ENTRY_BPF_H
#define NGX_BPF_ENTRY_BPF_H

#include "maps.bpf.h"

/* The value that a new entry of any map has. */
static const union {
	struct connection connection;
	struct multiplex multiplex;
	struct socket_state socket;
	struct subrequest_times subrequest;
} zero_entry = {};

/*
 * Creates the entry of `key` with all members 0, and returns it. An entry that is already there is
 * overwritten with BPF_ANY, and returned as it is with BPF_NOEXIST. NULL: the map is full.
 */
static __always_inline void *entry_create(void *map, const void *key, __u64 flags)
{
	if (bpf_map_update_elem(map, key, &zero_entry, flags) && flags != BPF_NOEXIST)
		return NULL;
	return bpf_map_lookup_elem(map, key);
}

#endif
