/* SPDX-License-Identifier: GPL-2.0-only */
/* The header that joins a request to a trace of its client: W3C Trace Context. */
#ifndef NGX_BPF_TRACEPARENT_H
#define NGX_BPF_TRACEPARENT_H

#include "read.h"

enum {
	HEADERS_MAX = 128, /* of a request, that are looked at */
	NAME_BYTES = 11,   /* of "traceparent" */
};

/* A walk through r->headers_in.headers: an ngx_list_t, of which a part at a time is copied. */
struct header_walk {
	struct worker *w;
	struct ngx_list_part_s *next; /* the part behind the one that is copied */
	__u32 size;		      /* of an element: ngx_table_elt_t has grown in 1.23.0 */
	__u32 count;		      /* elements of the copy */
	__u32 index;		      /* of them, the one to be looked at */
	__u32 found;
	struct ngx_str_t value; /* of the first that was found */
};

/* Copies the elements of a part. False when they are more than nginx makes a part of. */
static __always_inline bool copy_part(struct header_walk *walk, const void *elts, __u64 count)
{
	__u64 bytes = count * walk->size;

	walk->index = 0;
	walk->count = count;
	barrier_var(bytes);
	if (!bytes || bytes > HEADERS_BYTES)
		return false;
	return !bpf_probe_read_user(walk->w->headers, bytes, elts);
}

#define OF_HEADER(elt, member) NGX_IN(elt, (struct ngx_table_elt_s *)NULL, member)

/* Looks at one header. 1 ends the walk. */
static long look_at_header(struct bpf_map *map, const __u32 *step, void *value,
			   struct header_walk *walk)
{
	static const char wanted[NAME_BYTES] = "traceparent";
	struct ngx_list_part_s *part = walk->next;
	char name[NAME_BYTES] = {};
	__u32 at;
	void *elt;

	if (*step >= HEADERS_MAX)
		return 1;
	if (walk->index == walk->count) {
		if (!part)
			return 1;
		walk->next = NGX_GET(part, next);
		if (!copy_part(walk, NGX_GET(part, elts), NGX_GET(part, nelts)))
			return 1;
	}
	at = walk->index++ * walk->size;
	barrier_var(at);
	if (at > HEADERS_BYTES - HEADER_BYTES)
		return 1;
	elt = &walk->w->headers[at];
	/* A header without a hash was taken back: ngx_http_variable_unknown_header(). */
	if (OF_HEADER(elt, key.len) != NAME_BYTES || !OF_HEADER(elt, hash))
		return 0;
	bpf_probe_read_user(name, sizeof(name), OF_HEADER(elt, key.data));
	for (__u32 i = 0; i < NAME_BYTES; i++) {
		if ((name[i] | 0x20) != wanted[i])
			return 0;
	}
	if (!walk->found++)
		walk->value = OF_HEADER(elt, value);
	return 0;
}

/* The header's value. Not there when it was not sent, or more than once: then it says nothing. */
static __always_inline struct ngx_str_t traceparent(struct worker *w)
{
	struct header_walk walk = {
		.w = w,
		.next = OF_REQUEST(w, headers_in.headers.part.next),
		.size = OF_REQUEST(w, headers_in.headers.size),
	};
	struct ngx_str_t none = {};

	if (!copy_part(&walk, OF_REQUEST(w, headers_in.headers.part.elts),
		       OF_REQUEST(w, headers_in.headers.part.nelts)))
		return none;
	bpf_for_each_map_elem(&steps, look_at_header, &walk, 0);
	return walk.found == 1 ? walk.value : none;
}

#endif
