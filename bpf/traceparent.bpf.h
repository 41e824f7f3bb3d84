/* SPDX-License-Identifier: GPL-2.0-only */
/* The traceparent header, which says which trace a request belongs to: W3C Trace Context. */
#ifndef NGX_BPF_TRACEPARENT_BPF_H
#define NGX_BPF_TRACEPARENT_BPF_H

#include "asked.bpf.h"

enum { NAME_BYTES = 11 }; /* of "traceparent" */

/* Whether this is the header's name, in any case. */
static __always_inline bool is_traceparent(const void *from)
{
	__u64 name[2] = {}, wanted[2] = {};

	__builtin_memcpy(wanted, "traceparent", NAME_BYTES);
	bpf_probe_read_user(name, NAME_BYTES, from);
	return (name[0] | LOWER_CASE) == wanted[0] && (name[1] | 0x202020) == wanted[1];
}

/* Copies a part of the list. Returns its bytes; 0: they cannot be read. */
static __always_inline __u64 copy_part(struct scratch *s, const void *elts, __u64 count)
{
	/* The size is read, since ngx_table_elt_t has grown in 1.23.0. */
	__u64 bytes = count * OF_REQUEST(s, headers_in.headers.size);

	barrier_var(bytes);
	if (!bytes || bytes > HEADERS_BYTES || bpf_probe_read_user(s->headers, bytes, elts))
		return 0;
	return bytes;
}

/* The value of a header. Mostly it is in the first part of the list, which was copied. */
static __always_inline struct ngx_str_t header_value(struct scratch *s, __u64 bytes,
						     struct ngx_table_elt_s *elt)
{
	__u64 at = (void *)elt - (void *)OF_REQUEST(s, headers_in.headers.part.elts);
	struct ngx_str_t value = {};

	barrier_var(at);
	if (at < bytes && at <= HEADERS_BYTES - HEADER_BYTES)
		return OF_HEADER(&s->headers[at], value);
	if (elt)
		bpf_probe_read_user(&value, sizeof(value), &elt->value);
	return value;
}

/*
 * Searches the copy of a part, and notes where the value is. Returns how many such headers it has.
 */
__noinline int traceparents_of_part(struct scratch *s, __u64 bytes)
{
	__u64 size, at = 0;
	int found = 0;
	void *elt;

	if (!s)
		return 0;
	size = OF_REQUEST(s, headers_in.headers.size);
	for (__u32 i = 0; i < PART_HEADERS_MAX && at < bytes; i++, at += size) {
		barrier_var(at);
		if (at > HEADERS_BYTES - HEADER_BYTES)
			break;
		elt = &s->headers[at];
		/* A header without a hash was removed: ngx_http_variable_unknown_header(). */
		if (OF_HEADER(elt, key.len) != NAME_BYTES || !OF_HEADER(elt, hash) ||
		    !is_traceparent(OF_HEADER(elt, key.data)))
			continue;
		found++;
		s->traceparent = (__u64)OF_HEADER(elt, value.data);
		s->traceparent_len = OF_HEADER(elt, value.len);
	}
	return found;
}

/*
 * How many such headers the request has. 0 if not all of its headers could be searched. `bytes` of
 * the first part were copied.
 */
static __always_inline int traceparents(struct scratch *s, __u64 bytes)
{
	struct ngx_list_part_s *part = OF_REQUEST(s, headers_in.headers.part.next);
	int found = 0;

	for (__u32 i = 0; i < PARTS_MAX && bytes; i++) {
		found += traceparents_of_part(s, bytes);
		if (headers_len)
			headers_of_part(s, bytes);
		if (!part)
			return found;
		bytes = copy_part(s, NGX_GET(part, elts), NGX_GET(part, nelts));
		part = NGX_GET(part, next);
	}
	return 0;
}

#endif
