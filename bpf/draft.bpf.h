/* SPDX-License-Identifier: GPL-2.0-only */
/* The numbers of a record: what nginx's memory and the connection's entry know of its request. */
#ifndef NGX_BPF_DRAFT_BPF_H
#define NGX_BPF_DRAFT_BPF_H

#include "http3.bpf.h"
#include "spill.bpf.h"

/* The value of $status, once ngx_http_free_request(r, rc) has set it. */
static __always_inline __u32 request_status(struct scratch *s, long rc)
{
	__u32 err_status = OF_REQUEST(s, err_status);
	__u32 status = OF_REQUEST(s, headers_out.status);
	long sent = OF_CONNECTION(s, sent);

	if (rc > 0 && (status == 0 || sent == 0))
		status = rc;
	/* The upstream does not speak HTTP, and what it sent is passed on unchanged. */
	if (!status && OF_REQUEST(s, http_version) == NGX_HTTP_VERSION_9)
		status = NGX_HTTP_VERSION_9;
	return err_status ? err_status : status;
}

/* Whether limit_rate keeps nginx from sending. */
static __always_inline bool is_delayed(struct scratch *s)
{
	struct ngx_event_s *ev = OF_CONNECTION(s, write);

	return NGX_GET(ev, write) & NGX_EVENT_DELAYED;
}

/*
 * Whether the client's address is that of the kernel's socket. Where nginx has it is compared, and
 * not what is there, so that this reads nothing.
 */
static __always_inline bool is_of_peer(struct scratch *s, struct connection *conn)
{
	struct remote *remote = &conn->remote;
	struct address *peer = &conn->peer;

	return remote->sockaddr && remote->sockaddr == (__u64)OF_CONNECTION(s, sockaddr) &&
	       remote->text == (__u64)OF_CONNECTION(s, addr_text.data) && peer->family == AF_INET &&
	       bpf_ntohs(remote->port) == peer->port &&
	       !__builtin_memcmp(&remote->ipv4, peer->bytes, sizeof(remote->ipv4));
}

/* The times of the request that are in the entry. */
static __always_inline void draft_entry(struct scratch *s, struct connection *conn)
{
	struct request_record *d = &s->held.draft;

	response_settle(conn, d->bytes_sent);
	d->client_stall_ns = conn->stall_ns;
	if (conn->stall.since_ns && OF_CONNECTION(s, buffered) & NGX_CONNECTION_BUFFERED &&
	    !is_delayed(s))
		d->client_stall_ns += d->ended_ns - conn->stall.since_ns;
	__builtin_memcpy(d->waits, conn->waits, sizeof(d->waits));
	if (conn->is_wait_mixed)
		d->flags |= REQUEST_WAIT_MIXED;
	if (conn->unresolved && conn->unresolved == (__u64)OF_REQUEST(s, upstream))
		d->flags |= REQUEST_UNRESOLVED;
	d->established_ns = conn->established_ns;
	d->accepted_ns = conn->accepted_ns;
	d->read_wait_ns = conn->read_wait_ns;
	d->previous_ended_ns = conn->previous_ended_ns;
	d->request_first_ns = request_first_ns(conn);
	d->header_ns = conn->header_ns;
	d->handshake_first_ns = conn->handshake.first_ns;
	d->handshake_last_ns = conn->handshake.last_ns;
	if (IS_RESPONSE(OF_REQUEST(s, headers_out.status), OF_REQUEST(s, http_version))) {
		d->response_first_ns = conn->response_first_ns;
		d->response_last_ns = conn->response_last_ns;
	}
	d->flags |= conn->flags;
	d->local = conn->local;
	d->peer = conn->peer;
	if (is_of_peer(s, conn)) {
		d->flags |= REQUEST_OF_PEER;
		d->remote_port = d->peer.port;
	}
}

/*
 * The number of internal redirects: r->uri_changes counts down from one more than nginx allows. A
 * value that nginx never has is left to src/decode/facts.rs.
 */
static __always_inline __u32 redirects(struct scratch *s)
{
	__u32 at = URI_CHANGES_WORD, word;

	if (!uri_changes_at || at > REQUEST_BYTES_MAX - sizeof(word))
		return 0;
	word = *(__u32 *)&s->request[at];
	return NGX_HTTP_MAX_URI_CHANGES + 1 -
	       (word >> uri_changes_at % 32 & NGX_HTTP_URI_CHANGES_MASK);
}

/*
 * Whether ngx_http_process_request() was called, which sets both handlers. Without it error_page
 * sets the first one when it redirects, and a response of nginx's own that cannot be sent at once
 * sets both. But then r->err_status is that of a broken header, or what error_page has replaced it
 * with: that is 0 after a redirect without a status of its own.
 */
static __always_inline bool is_processed(struct scratch *s)
{
	__u32 err_status = OF_REQUEST(s, err_status);

	if (!bpf_core_field_exists(struct ngx_http_request_s, read_event_handler) ||
	    !OF_REQUEST(s, write_event_handler) || !OF_REQUEST(s, read_event_handler))
		return false;
	if (!err_status)
		return !redirects(s);
	return err_status > 400 && err_status != 408 && err_status != 414 && err_status != 431 &&
	       err_status != 494 && err_status != 505;
}

/*
 * Whether the header is complete: the part that nginx has parsed ends with an empty line. nginx
 * overwrites the byte after each value with a 0. So "\0\n" and "\0\r\n" are either the end of a
 * line, or an empty line after one that ended with LF alone.
 */
static __always_inline bool is_header_complete(struct scratch *s, const unsigned char *pos)
{
	unsigned char end[3] = {};

	if (bpf_probe_read_user(end, sizeof(end), pos - sizeof(end)) || end[2] != '\n')
		return false;
	if (end[1] == '\n' || (end[1] == '\r' && end[0] == '\n'))
		return true;
	return (!end[1] || (end[1] == '\r' && !end[0])) && is_processed(s);
}

/*
 * Whether a handler of the content has answered, so that nginx had parsed the whole header: without
 * an error, and without a redirect, with which error_page may hide one. Most requests end so, and
 * nothing has to be read of them.
 */
static __always_inline bool is_answered_at_once(struct scratch *s, struct request_record *d)
{
	__u64 status = OF_REQUEST(s, headers_out.status);

	return uri_changes_at && !OF_REQUEST(s, err_status) && status >= NGX_HTTP_OK &&
	       status < NGX_HTTP_BAD_REQUEST && d->http_version < NGX_HTTP_VERSION_20 &&
	       is_processed(s);
}

/*
 * The read that completed the body, if that is certain. When no read after the header found the
 * body incomplete, it came with the header: this holds for HTTP/1, and for a stream of HTTP/3 that
 * was checked with each datagram. Of a body that nginx discards only the reads after the header are
 * known.
 */
static __always_inline void draft_body(struct scratch *s, struct connection *conn)
{
	struct request_record *d = &s->held.draft;
	struct ngx_http_request_body_t *rb;
	__u64 with_header = d->header_ns ? d->header_ns : d->request_first_ns;
	bool has_body;
	long rest;

	/* A body of HTTP/1 has a length: nginx sums it up when it is chunked. */
	if (!knows_bodies() || (d->content_length_n < 0 && d->http_version < NGX_HTTP_VERSION_20))
		return;
	rb = OF_REQUEST(s, request_body);
	has_body = rb && !NGX_COPY(s->state, rb);
	rest = has_body ? OF_BODY(s, rest) : 0;
	if (has_body)
		d->request_spilt = spilt_body(s);
	if (rest < 0)
		return;
	if (rest > 0) {
		d->flags |= REQUEST_BODY;
		return;
	}
	if (!d->content_length_n) {
		if (d->http_version < NGX_HTTP_VERSION_20)
			d->body_ns = conn->body_ns; /* the body was discarded, or there was none */
		return;
	}
	if (!has_body || d->content_length_n < 0 ||
	    !(OF_BODY(s, buf) || OF_BODY(s, bufs) || OF_BODY(s, temp_file)))
		return;
	d->flags |= REQUEST_BODY;
	if (conn->is_body_unsure && d->http_version == NGX_HTTP_VERSION_20)
		return;
	d->body_ns = conn->body_ns;
	if (!d->body_ns && d->request_first_ns &&
	    (d->http_version < NGX_HTTP_VERSION_20 ||
	     (d->http_version == NGX_HTTP_VERSION_30 && !conn->is_body_unsure)))
		d->body_ns = with_header;
}

/*
 * The version that the client speaks. nginx sets it to 0.9 when it passes on something else than
 * HTTP, and in a post_action: a stream of HTTP/2 is recognised all the same.
 */
static __always_inline __u32 http_version(struct scratch *s)
{
	struct ngx_http_request_s *r = NULL;
	__u32 version = OF_REQUEST(s, http_version);

	if (version == NGX_HTTP_VERSION_9 && bpf_core_field_exists(r->stream) &&
	    OF_REQUEST(s, stream))
		return NGX_HTTP_VERSION_20;
	return version;
}

/*
 * Whether the client accepts no more of a response over HTTP/3, since it has reset the stream or
 * closed the connection. Only c->write shows that: ngx_http_upstream_check_broken_connection().
 */
static __always_inline bool is_stream_refused(struct scratch *s)
{
	struct ngx_event_s *ev;

	if (!knows_quic() || !OF_CONNECTION(s, quic))
		return false;
	ev = OF_CONNECTION(s, write);
	return NGX_GET(ev, write) & NGX_EVENT_ERROR;
}

/* The members of r and c that are numbers. Returns 0 when one of them could not be read. */
__noinline int draft_numbers(struct scratch *s, long rc, __u64 connection)
{
	struct ngx_connection_s *c = (void *)connection;
	struct request_record *d;
	struct ngx_buf_s *header_in;
	struct ngx_http_upstream_s *u;
	bool failed = false;

	if (!s || NGX_COPY(s->connection, c))
		return 0;
	d = &s->held.draft;
	d->request_length = OF_REQUEST(s, request_length);
	d->content_length_n = OF_REQUEST(s, headers_in.content_length_n);
	d->http_version = http_version(s);
	if (knows_quic() && OF_CONNECTION(s, quic))
		d->http_version = NGX_HTTP_VERSION_30;
	d->bytes_sent = OF_CONNECTION(s, sent);
	d->status = request_status(s, rc);
	d->redirects = redirects(s);
	d->connection = OF_CONNECTION(s, number);
	d->connection_requests = OF_CONNECTION(s, requests);
	if (layout_inferred)
		d->flags |= REQUEST_INFERRED;
	if (bpf_core_field_exists(c->ssl) && OF_CONNECTION(s, ssl))
		d->flags |= REQUEST_TLS;
	u = OF_REQUEST(s, upstream);
	if (OF_CONNECTION(s, buffered) & NGX_CONNECTION_FAILED || (u && is_stream_refused(s)))
		d->flags |= REQUEST_UNSERVED;
	if (u) {
		d->flags |= REQUEST_UPSTREAM;
		NGX_COPY(s->upstream, u); /* it is 0 where it cannot be read */
		if (bpf_core_field_exists(u->cache_status))
			d->cache_status =
				OF_UPSTREAM(s, cache_status) >> NGX_HTTP_CACHE_STATUS_BIT &
				NGX_HTTP_CACHE_STATUS_MASK;
	}
	header_in = OF_REQUEST(s, header_in);
	if (!u && header_in &&
	    (is_answered_at_once(s, d) || is_header_complete(s, NGX_READ(failed, header_in, pos))))
		d->flags |= REQUEST_HEADER_COMPLETE;
	return !failed;
}

/* What the entry of the connection shows of the request. */
__noinline int draft_connection(struct scratch *s, struct connection *conn)
{
	if (!s || !conn)
		return 0;
	draft_entry(s, conn);
	draft_body(s, conn);
	return 0;
}

#endif
