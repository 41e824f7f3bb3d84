/* SPDX-License-Identifier: GPL-2.0-only */
/* Reads of nginx's memory. They never fault: a member that cannot be read is 0, or reported. */
#ifndef NGX_BPF_READ_BPF_H
#define NGX_BPF_READ_BPF_H

#include "maps.bpf.h"
#include "nginx.h"

/*
 * The member's value. If it cannot be read, it is 0 and `failed` is set. The pointer is evaluated
 * first, since otherwise its own member accesses would be relocated, too.
 */
#define NGX_READ(failed, ptr, member)                                                              \
	({                                                                                         \
		typeof(ptr) ptr_ = (ptr);                                                          \
		typeof(ptr_->member) value_ = 0;                                                   \
		failed |= bpf_core_read_user(&value_, sizeof(value_), &ptr_->member) != 0;         \
		value_;                                                                            \
	})

/* The same where 0 also says that it could not be read. */
#define NGX_GET(ptr, member)                                                                       \
	({                                                                                         \
		typeof(ptr) ptr_ = (ptr);                                                          \
		typeof(ptr_->member) value_ = 0;                                                   \
		bpf_core_read_user(&value_, sizeof(value_), &ptr_->member);                        \
		value_;                                                                            \
	})

/* The same where a build may lack the member, or 0 is a value: `otherwise` is used instead. */
#define NGX_GET_OR(ptr, member, otherwise)                                                         \
	({                                                                                         \
		typeof(ptr) ptr_ = (ptr);                                                          \
		typeof(ptr_->member) value_ = (otherwise);                                         \
		if (bpf_core_field_exists(ptr_->member) &&                                         \
		    bpf_core_read_user(&value_, sizeof(value_), &ptr_->member))                    \
			value_ = (otherwise);                                                      \
		value_;                                                                            \
	})

/*
 * Copies a struct up to the last member that nginx.h has: one read instead of one for each member.
 * Not 0: it could not be read. src/attach/btf.rs ensures that the copy has room for it.
 */
#define NGX_COPY(copy, ptr) bpf_probe_read_user((copy), bpf_core_type_size(typeof(*(ptr))), (ptr))

/* A member of the copy of what `ptr` points to. */
#define NGX_IN(copy, ptr, member)                                                                  \
	(*(typeof((ptr)->member) *)((void *)(copy) + bpf_core_field_offset(typeof(*(ptr)), member)))

/* Bytes of a struct up to the end of a member. */
#define NGX_END(ptr, member) (bpf_core_field_offset(typeof(*(ptr)), member) + sizeof((ptr)->member))

/* Members of the copies of the request that ends, and of its ngx_connection_t. */
#define OF_REQUEST(s, member) NGX_IN((s)->request, (struct ngx_http_request_s *)NULL, member)
#define OF_CONNECTION(s, member) NGX_IN((s)->connection, (struct ngx_connection_s *)NULL, member)

/* The same of the copy of its ngx_http_upstream_t. */
#define OF_UPSTREAM(s, member) NGX_IN((s)->upstream, (struct ngx_http_upstream_s *)NULL, member)

/* The offset of the word that has r->uri_changes. Only where uri_changes_at is set. */
#define URI_CHANGES_WORD                                                                           \
	(bpf_core_field_offset(struct ngx_http_request_s, http_connection) +                       \
	 uri_changes_at / 32 * sizeof(__u32))

/* Whether this nginx has QUIC. If not, the verifier removes all code that is for QUIC only. */
static __always_inline bool knows_quic(void)
{
	return bpf_core_field_exists(struct ngx_connection_s, quic) &&
	       bpf_core_field_exists(struct ngx_quic_stream_s, parent);
}

/* Whether this is a request that nginx has not freed. Any pointer may be passed. */
static __always_inline bool is_request(struct ngx_http_request_s *r)
{
	return NGX_GET(r, signature) == NGX_HTTP_MODULE;
}

/* has_response() of both members. The second one is read only where it is needed. */
#define IS_RESPONSE(status, version) ((status) || (version) == NGX_HTTP_VERSION_9)

/*
 * Whether this request has a response by now. Interim responses (100, 103) are no part of it: nginx
 * sets headers_out.status of the main request before it sends the header, and not for them. A
 * response that is passed on as HTTP/0.9, since the upstream does not speak HTTP, has no status.
 */
static __always_inline bool has_response(struct ngx_http_request_s *r)
{
	return IS_RESPONSE(NGX_GET(r, headers_out.status), NGX_GET(r, http_version));
}

/* The host that a variable gave an upstream without a group; NULL: it has none. */
static __always_inline struct ngx_str_t *host_of_variable(struct ngx_http_upstream_s *u)
{
	struct ngx_str_t *resolved = NULL;

	if (NGX_GET_OR(u, upstream, NULL))
		return NULL;
	bpf_probe_read_user(&resolved, sizeof(resolved),
			    (void *)&u->buffer - NGX_HTTP_UPSTREAM_RESOLVED);
	return resolved;
}

/* Members of the copy of a header. */
#define OF_HEADER(elt, member) NGX_IN(elt, (struct ngx_table_elt_s *)NULL, member)

/* Members of the head of a request. */
#define OF_HEAD(w, member) NGX_IN((w)->head, (struct ngx_http_request_s *)NULL, member)

/* Copies the head of a request of this size. False: this is not a request, or cannot be read. */
static __always_inline bool request_copy(struct worker *w, struct ngx_http_request_s *r, __u32 size)
{
	return size <= sizeof(w->head) && /* true in all known layouts */
	       !bpf_probe_read_user(w->head, size, r) && OF_HEAD(w, signature) == NGX_HTTP_MODULE;
}

/* The same up to its pool, which is one of the first members. */
static __always_inline bool request_head(struct worker *w, struct ngx_http_request_s *r)
{
	return request_copy(w, r, NGX_END(r, pool));
}

/* The same as has_response(), of a request that was copied up to its status. */
static __always_inline bool has_response_in(struct worker *w, struct ngx_http_request_s *r)
{
	return IS_RESPONSE(OF_HEAD(w, headers_out.status), NGX_GET(r, http_version));
}

/* Members of the copy of an ngx_connection_t. */
#define OF_PEER(w, member) NGX_IN((w)->peer, (struct ngx_connection_s *)NULL, member)

/* Copies an ngx_connection_t. One that cannot be read is 0. */
static __always_inline void connection_copy(struct worker *w, struct ngx_connection_s *c)
{
	NGX_COPY(w->peer, c);
}

/*
 * The value, or the limit (a constant) where that is less. Verifiers before Linux 6.9 do not see
 * that a value is bounded when the compiler checks one copy of it and uses another. So this is done
 * in one register, where the value is used, also when it was checked before.
 */
static __always_inline __u64 at_most(__u64 value, __u32 limit)
{
	asm volatile("if %[value] <= %[limit] goto +1\n\t"
		     "%[value] = %[limit]"
		     : [value] "+r"(value)
		     : [limit] "i"(limit));
	return value;
}

/* Copies a struct into the tail. */
static __always_inline void put(struct scratch *s, __u32 at, const void *from, __u32 size)
{
	if (at <= TAIL_BYTES - size)
		__builtin_memcpy(&s->held.tail[at_most(at, TAIL_BYTES - size)], from, size);
}

/*
 * Appends at most `limit` bytes (a constant) of nginx's memory to the tail. Returns how many: 0
 * when there are none, or they cannot be read. The tail's length is kept in memory, not in a
 * variable: so the verifier follows this once, and not for each length that the texts before may
 * have.
 */
static __always_inline __u32 append_text(struct scratch *s, const void *from, __u64 len,
					 __u32 limit)
{
	__u32 at;

	if (!from || !len)
		return 0;
	len = len > limit ? limit : len;
	at = s->held.tail_len;
	if (at > TAIL_BYTES - limit)
		return 0;
	if (bpf_probe_read_user(&s->held.tail[at_most(at, TAIL_BYTES - limit)], at_most(len, limit),
				from))
		return 0;
	s->held.tail_len = at + len;
	return len;
}

/* The same as a text, which is marked if it is longer. `from_at` is where its texts begin. */
static __always_inline void append_cut(struct scratch *s, struct text *text, __u32 from_at,
				       const void *from, __u64 len, __u32 limit)
{
	text->at = s->held.tail_len - from_at;
	text->len = append_text(s, from, len, limit);
	if (text->len && len > limit)
		text->len |= TEXT_CUT;
}

#endif
