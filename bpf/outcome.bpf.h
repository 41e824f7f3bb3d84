/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How an attempt at an upstream has ended, as nginx's memory says it: in the bits that it keeps of
 * its work with the upstream and of the connection's events, and in the pipe or the length that it
 * reads a response with. src/failure.rs decides from that.
 */
#ifndef NGX_BPF_OUTCOME_BPF_H
#define NGX_BPF_OUTCOME_BPF_H

#include "read.bpf.h"

/* What nginx notes of its work with an upstream, wherever this release has the bits. */
enum upstream_bit {
	U_BUFFERING = 1,
	U_KEEPALIVE = 2,
	U_UPGRADE = 4,
	U_ERROR = 8,
	U_REQUEST_SENT = 16,
	U_BODY_SENT = 32,
	U_HEADER_SENT = 64 | 128, /* or body_blocked, which a request of gRPC sets */
};

/*
 * These bits, from u->store on. Since 1.19.1 error stands before request_sent, which is set by the
 * time that anything is sent, while error is not set before the header has been sent to the client:
 * so the others are found from either of the two.
 */
static __always_inline __u32 upstream_bits(struct ngx_http_upstream_s *u)
{
	__u32 bits = NGX_GET(u, store), rest;

	bits >>= bpf_core_field_exists(u->cache_status) ? NGX_HTTP_UPSTREAM_BUFFERING_BIT
							: NGX_HTTP_UPSTREAM_BUFFERING_BIT_NO_CACHE;
	rest = bits >> 3;
	bits &= U_BUFFERING | U_KEEPALIVE | U_UPGRADE;
	if (!(rest & 1) || rest & 16)
		return bits | (rest & 31) << 3;
	return bits | (rest & 15) << 4;
}

/* Whether the request has been sent, its body included; nothing when nothing was sent. */
static __always_inline __u32 whole_or_part(__u32 bits)
{
	if (!(bits & U_REQUEST_SENT))
		return 0;
	return bits & U_BODY_SENT ? ATTEMPT_WHOLE : ATTEMPT_PART;
}

/*
 * What nginx's memory says of a connection to an upstream that failed or is about to be closed: of
 * the timers, and of an end that came as an alert of TLS.
 */
static __always_inline void upstream_look(struct attempt_times *a, struct ngx_connection_s *c,
					  bool is_sending)
{
	struct ngx_event_s *ev = NGX_GET(c, read);
	__u32 bits = NGX_GET(ev, write);

	a->flags |= ATTEMPT_LOOKED;
	if (bits & NGX_EVENT_TIMEDOUT)
		a->flags |= ATTEMPT_TIMED_OUT;
	if (bits & NGX_EVENT_EOF)
		a->flags |= ATTEMPT_EOF;
	else if (bits & NGX_EVENT_ERROR)
		a->flags |= ATTEMPT_GIVEN_UP;
	if (!is_sending)
		return;
	ev = NGX_GET(c, write);
	if (NGX_GET(ev, write) & NGX_EVENT_TIMEDOUT)
		a->flags |= ATTEMPT_STUCK;
}

/*
 * Whether the last thing that nginx has parsed is the frame that ends a stream or a connection of
 * HTTP/2: RST_STREAM, with the error's number, or GOAWAY, with a stream's and the error's.
 */
static __always_inline bool is_cancelled(struct ngx_http_upstream_s *u)
{
	unsigned char frame[17] = {}; /* a header of 9 bytes, and what GOAWAY has at least */
	unsigned char *pos = NGX_GET(u, buffer.pos);

	if (pos - NGX_GET(u, buffer.start) < 13)
		return false;
	if (bpf_probe_read_user(frame, sizeof(frame), pos - sizeof(frame)))
		return false;
	return (!frame[4] && !frame[5] && frame[6] == 4 && frame[7] == 3) ||
	       (!frame[0] && !frame[1] && frame[2] >= 8 && frame[3] == 7);
}

/*
 * How the last attempt of a request has ended, as far as nginx's memory says it: `u` is what nginx
 * worked with last. Of an attempt that sent nothing it may be another one's.
 */
static __noinline int upstream_outcome(struct ngx_http_upstream_s *u, __u32 bits)
{
	struct ngx_event_pipe_s *p;
	int flags = whole_or_part(bits);
	__u32 piped;
	long length;

	if (!flags)
		return 0;
	if (bits & U_UPGRADE)
		return flags | ATTEMPT_TUNNEL;
	if (bits & U_KEEPALIVE)
		return flags;
	if (bits & U_BUFFERING) {
		p = NGX_GET(u, pipe);
		piped = NGX_GET(p, read);
		/* Where only the header is sent on, the pipe is not used. */
		if (piped & NGX_EVENT_PIPE_UPSTREAM_DONE || !NGX_GET(p, downstream))
			return flags;
		length = NGX_GET(p, length);
		if (piped & NGX_EVENT_PIPE_UPSTREAM_EOF)
			flags |= ATTEMPT_EOF;
		else if (piped & NGX_EVENT_PIPE_UPSTREAM_ERROR)
			flags |= ATTEMPT_GIVEN_UP;
		else if (NGX_GET(NGX_GET(p, temp_file), fd) > 0)
			flags |= ATTEMPT_UNSERVED; /* or so: the disk may have been full */
		if (piped & NGX_EVENT_PIPE_DOWNSTREAM_ERROR)
			flags |= ATTEMPT_UNSERVED;
	} else {
		length = NGX_GET(u, length);
		if (!length)
			return flags;
		if (bits & U_ERROR)
			flags |= ATTEMPT_GIVEN_UP;
	}
	if (length == -1)
		flags |= ATTEMPT_OPEN_ENDED;
	return flags | ATTEMPT_INCOMPLETE;
}

#endif
