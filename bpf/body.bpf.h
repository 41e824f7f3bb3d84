/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The body of a client's request: whether nginx has all of it. nginx counts down what is missing
 * (rb->rest) as soon as it has read something, in every protocol, so that the last read before
 * which a body was not whole is the one that made it whole.
 */
#ifndef NGX_BPF_BODY_BPF_H
#define NGX_BPF_BODY_BPF_H

#include "read.bpf.h"

/* Whether this layout has the members that say how much of a body is missing. */
static __always_inline bool knows_bodies(void)
{
	return bpf_core_field_exists(struct ngx_http_request_s, request_body) &&
	       bpf_core_field_exists(struct ngx_http_request_body_t, rest);
}

/*
 * Whether nginx has put anything into it. It has not when it discards a chunked body, for which it
 * keeps no more than the state of its parser: ngx_http_discard_request_body_filter().
 */
static __always_inline bool body_is_kept(struct ngx_http_request_body_t *rb)
{
	return NGX_GET(rb, buf) || NGX_GET(rb, bufs) || NGX_GET(rb, temp_file);
}

/*
 * Whether more of the body of a request is to come, whose header is complete. While nginx discards
 * a body, r->headers_in.content_length_n is what is missing of it, or more than 0 when it is
 * chunked.
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
