/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Streams of which more is to come, of the header or of the body. A read does not show whose bytes
 * it brought, so that each read checks all of them: it looks at one word of nginx's memory for
 * each, and at the stream itself only when that has changed. The read before is then the last one
 * that found the stream incomplete.
 */
#ifndef NGX_BPF_WATCH_BPF_H
#define NGX_BPF_WATCH_BPF_H

#include "body.bpf.h"
#include "connection.bpf.h"

static __always_inline void watch_begin(struct watch *watch, struct connection *stream, __u64 c)
{
	watch->connection = c;
	watch->generation = stream->generation;
	watch->word = 0;
}

/* Whether the stream is as incomplete as it was. If that is not certain, the stream shows it. */
static __always_inline bool is_unchanged(const struct watch *watch)
{
	__u64 value = 0;

	return watch->word && !bpf_probe_read_user(&value, sizeof(value), (void *)watch->word) &&
	       value == watch->value;
}

/* The stream, if its ngx_connection_t is not another one's by now. */
static __always_inline struct connection *watch_stream(struct worker *w, const struct watch *watch)
{
	struct connection *stream = connection_find(w, watch->connection);

	return stream && stream->generation == watch->generation ? stream : NULL;
}

/* A body that is open stays open until nginx has counted down what is missing. */
static __always_inline void watch_body(struct watch *watch, struct ngx_http_request_s *r)
{
	struct ngx_http_request_body_t *rb;
	long rest;

	watch->word = 0;
	if (!knows_bodies())
		return;
	rb = NGX_GET(r, request_body);
	rest = rb ? NGX_GET(rb, rest) : 0;
	if (rest <= 0)
		return;
	watch->word = (__u64)&rb->rest;
	watch->value = rest;
}

#endif
