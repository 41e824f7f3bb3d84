/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The body of a client's request: whether nginx has all of it. As soon as nginx has read something
 * it counts down what is missing (rb->rest), in every protocol. So the last read before which a
 * body was incomplete is the one that completed it.
 */
#ifndef NGX_BPF_BODY_BPF_H
#define NGX_BPF_BODY_BPF_H

#include "read.bpf.h"

/* Whether this layout has the members that count what is missing of a body. */
static __always_inline bool knows_bodies(void)
{
	return bpf_core_field_exists(struct ngx_http_request_s, request_body) &&
	       bpf_core_field_exists(struct ngx_http_request_body_t, rest);
}

/*
 * Whether nginx has stored anything of the body. It stores nothing of a chunked body that it
 * discards, except for the state of its parser: ngx_http_discard_request_body_filter().
 */
static __always_inline bool body_is_kept(struct ngx_http_request_body_t *rb)
{
	return NGX_GET(rb, buf) || NGX_GET(rb, bufs) || NGX_GET(rb, temp_file);
}

/*
 * Whether more of the body is to come, of a request whose header is complete. While nginx discards
 * a body, r->headers_in.content_length_n is what is missing of it; it is more than 0 for a chunked
 * body.
 */
static __always_inline bool body_is_open(struct ngx_http_request_s *r)
{
	struct ngx_http_request_body_t *rb;
	long rest;

	if (!knows_bodies())
		return false;
	rb = NGX_GET(r, request_body);
	rest = rb ? NGX_GET(rb, rest) : 0;
	if (rest)
		return rest > 0;
	return NGX_GET(r, headers_in.content_length_n) > 0 && !(rb && body_is_kept(rb));
}

#endif
