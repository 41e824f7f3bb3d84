/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Places in the configuration: the location that answered a request, and its server. The structs of
 * a configuration live as long as a worker, so that a record has only the address of its place. The
 * names are read once a worker, and go to user space before the first record that needs them.
 *
 * ngx_http_core_module is the first HTTP module in every build (auto/modules), and the first one
 * gets ctx_index 0 (ngx_count_modules()). So its struct is the first element of r->loc_conf and of
 * r->srv_conf.
 */
#ifndef NGX_BPF_PLACE_BPF_H
#define NGX_BPF_PLACE_BPF_H

#include "read.bpf.h"
#include "submit.bpf.h"

/* No pointer of a process is less (vm.mmap_min_addr), and no length in a configuration is more. */
enum { POINTER_MIN = 1 << 16 };

/* The slot of an address: Fibonacci hashing. */
static __always_inline __u32 place_slot(__u64 address)
{
	return (address >> 3) * 11400714819323198485ULL >> (64 - __builtin_ctz(PLACE_SLOTS));
}

/* Appends a name to the place that is being put together. */
static __always_inline void place_text(struct scratch *s, struct text *text, const void *from,
				       __u64 len)
{
	append_cut(s, text, sizeof(struct place_record), from, len, PLACE_MAX);
}

/* Where a block stands in the configuration. A path that is too long is left out. */
static __always_inline void place_file(struct scratch *s, struct place_record *place,
				       const void *file, __u32 line)
{
	__u32 at = s->held.tail_len;
	long len;

	if (at < sizeof(*place) || at > TAIL_BYTES - PLACE_MAX)
		return;
	len = bpf_probe_read_user_str(&s->held.tail[at_most(at, TAIL_BYTES - PLACE_MAX)], PLACE_MAX,
				      file);
	if (len <= 1 || len >= PLACE_MAX)
		return;
	place->file.at = at - sizeof(*place);
	place->file.len = len - 1;
	place->line = line;
	s->held.tail_len = at + len - 1;
}

/* The name of the server, as in $server_name, and where it stands. */
static __always_inline void place_server(struct scratch *s, struct place_record *place)
{
	void *cscf = NULL;
	__u64 names[4] = {};

	if (bpf_probe_read_user(&cscf, sizeof(cscf), OF_REQUEST(s, srv_conf)) ||
	    bpf_probe_read_user(names, sizeof(names), cscf + NGX_HTTP_CORE_SRV_CONF_NAMES))
		return;
	if (names[0] < POINTER_MIN) { /* a length, of nginx before 1.15.0 */
		place_text(s, &place->server_name, (void *)names[1], names[0]);
	} else if (names[2] < POINTER_MIN) {
		place_text(s, &place->server_name, (void *)names[3], names[2]);
		if (config_lines)
			place_file(s, place, (void *)names[0], names[1]);
	}
}

/* Reads the name of a place, and puts it into the record. False: it is not a name. */
static __always_inline bool place_name(struct scratch *s, struct place_record *place,
				       struct ngx_str_t *from)
{
	struct ngx_str_t name = {};

	if (bpf_probe_read_user(&name, sizeof(name), from) || name.len >= POINTER_MIN)
		return false;
	place_text(s, &place->name, name.data, name.len);
	return true;
}

/* Puts the names of a location and of its server into the record. */
static __always_inline bool place_location(struct scratch *s, struct place_record *place)
{
	struct ngx_http_core_loc_conf_s *clcf = NULL;

	if (bpf_probe_read_user(&clcf, sizeof(clcf), OF_REQUEST(s, loc_conf)) ||
	    !place_name(s, place, &clcf->name))
		return false;
	place_server(s, place);
	return true;
}

/* Puts the name of a group of upstream servers into the record. */
static __always_inline bool place_group(struct scratch *s, struct place_record *place,
					struct ngx_http_upstream_srv_conf_s *uscf)
{
	if (!place_name(s, place, &uscf->host))
		return false;
	if (config_lines && bpf_core_field_exists(uscf->file_name))
		place_file(s, place, NGX_GET(uscf, file_name), NGX_GET(uscf, line));
	return true;
}

/*
 * Sends the names of a place to user space, unless it knows them. The record is put together in the
 * tail, where nothing of the request is yet. Returns the address; 0: the names could not be read,
 * or there was no room for the record.
 */
static __always_inline __u64 place_announced(struct worker *w, struct scratch *s, __u64 address,
					     enum record_kind kind)
{
	struct place_record *place = (void *)s->held.tail;
	__u32 slot = place_slot(address), size;
	bool is_named;

	if (!address || w->places[slot] == address)
		return address;
	__builtin_memset(place, 0, sizeof(*place));
	s->held.tail_len = sizeof(*place);
	if (kind == RECORD_LOCATION)
		is_named = place_location(s, place);
	else
		is_named = place_group(s, place, (void *)address);
	size = s->held.tail_len;
	s->held.tail_len = 0;
	place->kind = kind;
	place->size = size;
	place->pid = w->pid;
	place->slot = slot;
	place->address = address;
	if (!is_named || size > TAIL_BYTES || !ring_output(place, size))
		return 0;
	/* Without a master, nginx may read its configuration again in the same process. */
	w->places[slot] = w->flags & WORKER_ALONE ? 0 : address;
	return address;
}

/* The location of the request that ends. */
__noinline int draft_location(struct worker *w, struct scratch *s)
{
	if (!w || !s || !bpf_core_field_exists(struct ngx_http_request_s, loc_conf) ||
	    !bpf_core_field_exists(struct ngx_http_request_s, srv_conf) ||
	    !bpf_core_field_exists(struct ngx_http_core_loc_conf_s, name))
		return 0;
	s->held.draft.location =
		place_announced(w, s, (__u64)OF_REQUEST(s, loc_conf), RECORD_LOCATION);
	return 0;
}

/* The group of its last upstream. */
__noinline int draft_group(struct worker *w, struct scratch *s)
{
	if (!w || !s || !bpf_core_field_exists(struct ngx_http_upstream_s, upstream) ||
	    !bpf_core_field_exists(struct ngx_http_upstream_srv_conf_s, host))
		return 0;
	s->held.draft.upstream =
		place_announced(w, s, (__u64)OF_UPSTREAM(s, upstream), RECORD_UPSTREAM);
	return 0;
}

#endif
