/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How an attempt at an upstream has ended, as nginx's memory shows it: the bits of u and of the
 * connection's events, and the pipe or the length that nginx reads a response with.
 * src/decode/failure.rs names the failure.
 */
#ifndef NGX_BPF_OUTCOME_BPF_H
#define NGX_BPF_OUTCOME_BPF_H

#include "read.bpf.h"

/* Bits of u, at the same place for all releases: see upstream_bits(). */
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
 * The bits of enum upstream_bit, of the word that begins with u->store. Since 1.19.1 the bit error
 * comes before request_sent. request_sent is set when anything was sent, and error is not set
 * before the header was sent to the client: so the values show which of the two the first bit is.
 */
static __always_inline __u32 upstream_bits_in(__u32 bits)
{
	__u32 rest;

	bits >>= bpf_core_field_exists(struct ngx_http_upstream_s, cache_status)
			 ? NGX_HTTP_UPSTREAM_BUFFERING_BIT
			 : NGX_HTTP_UPSTREAM_BUFFERING_BIT_NO_CACHE;
	rest = bits >> 3;
	bits &= U_BUFFERING | U_KEEPALIVE | U_UPGRADE;
	if (!(rest & 1) || rest & 16)
		return bits | (rest & 31) << 3;
	return bits | (rest & 15) << 4;
}

static __always_inline __u32 upstream_bits(struct ngx_http_upstream_s *u)
{
	return upstream_bits_in(NGX_GET(u, store));
}

/* ATTEMPT_WHOLE or ATTEMPT_PART, by what was sent of the request; 0: nothing was sent. */
static __always_inline __u32 whole_or_part(__u32 bits)
{
	if (!(bits & U_REQUEST_SENT))
		return 0;
	return bits & U_BODY_SENT ? ATTEMPT_WHOLE : ATTEMPT_PART;
}

/*
 * Notes what the events of an upstream connection show when it has failed or is about to be closed:
 * its timers, and an end that came as a TLS alert.
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
 * Whether the last frame that nginx has parsed ends a stream or a connection of HTTP/2: RST_STREAM,
 * which has an error code, or GOAWAY, which has a stream's number and an error code.
 */
static __always_inline bool is_cancelled(struct ngx_http_upstream_s *u)
{
	unsigned char frame[17] = {}; /* a header of 9 bytes, and 8 bytes of GOAWAY */
	unsigned char *pos = NGX_GET(u, buffer.pos);

	if (pos - NGX_GET(u, buffer.start) < 13)
		return false;
	if (bpf_probe_read_user(frame, sizeof(frame), pos - sizeof(frame)))
		return false;
	return (!frame[4] && !frame[5] && frame[6] == 4 && frame[7] == 3) ||
	       (!frame[0] && !frame[1] && frame[2] >= 8 && frame[3] == 7);
}

/*
 * Flags of the last attempt of a request, by the copy of its r->upstream. If the attempt has sent
 * nothing, that may still be about the attempt before, so that there are none.
 */
static __always_inline int upstream_outcome(struct scratch *s, __u32 bits)
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
		p = OF_UPSTREAM(s, pipe);
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
			flags |= ATTEMPT_UNSERVED; /* most likely: or the disk is full */
		if (piped & NGX_EVENT_PIPE_DOWNSTREAM_ERROR)
			flags |= ATTEMPT_UNSERVED;
	} else {
		length = OF_UPSTREAM(s, length);
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
