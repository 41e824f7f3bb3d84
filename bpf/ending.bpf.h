/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a request has ended, as nginx's memory shows it. src/decode/ending.rs names the end.
 *
 * When nginx has sent the whole response of a request, ngx_http_finalize_request() gives it an
 * empty write_event_handler. Whatever ends a request earlier (ngx_http_terminate_request()) gives
 * it another one, or ends it while it has none. So for a request that ended well one comparison is
 * all that this costs.
 */
#ifndef NGX_BPF_ENDING_BPF_H
#define NGX_BPF_ENDING_BPF_H

#include "http3.bpf.h"
#include "phase.bpf.h"

/* Before 1.11.0 the bits of c are elsewhere. This member is there since 1.11.4. */
static __always_inline bool knows_connection_bits(void)
{
	return bpf_core_field_exists(struct ngx_http_upstream_state_t, bytes_received);
}

/* What a connection shows: `bits` is the word that begins with c->buffered. */
static __always_inline __u32 ending_of(__u32 bits, struct ngx_event_s *rev, struct ngx_event_s *wev)
{
	__u32 read = NGX_GET(rev, write), write = NGX_GET(wev, write), flags = 0;

	if (bits & NGX_CONNECTION_ERROR)
		flags |= REQUEST_FAILED;
	if (bits & NGX_CONNECTION_TIMEDOUT)
		flags |= REQUEST_TIMED_OUT;
	if (bits & NGX_CONNECTION_CLOSE)
		flags |= REQUEST_CLOSED;
	if ((read | write) & NGX_EVENT_EOF)
		flags |= REQUEST_EOF;
	if ((read | write) & NGX_EVENT_ERROR)
		flags |= REQUEST_BROKEN;
	if (read & NGX_EVENT_TIMEDOUT)
		flags |= REQUEST_READ_TIMEOUT;
	if (write & NGX_EVENT_TIMEDOUT)
		flags |= REQUEST_SEND_TIMEOUT;
	return flags;
}

/*
 * The same for a stream of HTTP/2 that has failed, whose ngx_connection_t is its own. If its
 * connection has ended, the stream has the end of input (ngx_http_v2_finalize_connection()); if
 * nothing could be sent on it, that has failed, too. Then the connection shows why.
 */
static __always_inline __u32 ending_of_stream(struct worker *w, struct scratch *s,
					      struct connection *conn, __u32 of_stream)
{
	struct ngx_http_v2_connection_s *h2c;
	struct ngx_connection_s *c;
	__u32 flags;

	h2c = NGX_GET(OF_REQUEST(s, stream), connection);
	c = NGX_GET(h2c, connection);
	flags = ending_of(NGX_GET(c, buffered), NGX_GET(c, read), NGX_GET(c, write));
	conn = conn ? connection_find(w, conn->parent) : NULL;
	if (conn)
		flags |= conn->flags & REQUEST_SOCKET_ERROR;
	if (of_stream & REQUEST_EOF || flags & REQUEST_FAILED)
		return flags | REQUEST_DROPPED;
	return of_stream;
}

/* `conn` is NULL where nothing is known of the connection. */
__noinline int draft_ending(struct worker *w, struct scratch *s, struct connection *conn)
{
	struct request_record *d;
	__u32 flags;

	if (!w || !s || !s->empty_handler)
		return 0;
	d = &s->held.draft;
	if ((__u64)OF_REQUEST(s, write_event_handler) == s->empty_handler) {
		d->flags |= REQUEST_FINISHED;
		if (d->status >= NGX_HTTP_BAD_REQUEST && is_limited(w, s))
			d->flags |= REQUEST_LIMITED;
		/* Both sides of a tunnel may go on after the response. */
		if (d->status != NGX_HTTP_SWITCHING_PROTOCOLS)
			return 0;
	} else if (knows_connection_bits()) {
		d->flags |= REQUEST_CUT;
		/* ngx_http_process_request() sets the first handler. */
		if (!OF_REQUEST(s, write_event_handler))
			d->flags |= REQUEST_UNPROCESSED;
	}
	if (!knows_connection_bits())
		return 0;
	flags = ending_of(OF_CONNECTION(s, buffered), OF_CONNECTION(s, read),
			  OF_CONNECTION(s, write));
	if (flags & REQUEST_FAILED && bpf_core_field_exists(struct ngx_http_request_s, stream) &&
	    OF_REQUEST(s, stream))
		flags = ending_of_stream(w, s, conn, flags);
	d->flags |= flags;
	return 0;
}

#endif
