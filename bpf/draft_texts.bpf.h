/* SPDX-License-Identifier: GPL-2.0-only */
/* The texts of a record: request line, host, addresses, server name, traceparent. */
#ifndef NGX_BPF_DRAFT_TEXTS_BPF_H
#define NGX_BPF_DRAFT_TEXTS_BPF_H

#include "http3.bpf.h"
#include "place.bpf.h"
#include "traceparent.bpf.h"

/*
 * The request line in nginx's buffer. It has the method, uri and protocol of HTTP/1, also `$uri` if
 * nothing in that was decoded, and mostly the host follows at once. So it is copied in one read,
 * and these texts are places in the copy.
 */
struct line {
	const void *from;
	__u64 len; /* 0: not copied */
};

static __always_inline void draft_line(struct scratch *s, struct line *line, struct ngx_str_t *host)
{
	const void *end = OF_REQUEST(s, http_protocol.data) + OF_REQUEST(s, http_protocol.len);
	__u64 gap = (const void *)host->data - end, len;

	line->from = OF_REQUEST(s, method_name.data);
	if (gap <= sizeof("\r\nHost: ") && host->len <= HOST_MAX)
		end = host->data + host->len;
	len = end - line->from;
	line->len = len <= URI_MAX ? append_text(s, line->from, len, URI_MAX) : 0;
}

/* One text of the request. `limit` is a constant: DRAFT_TEXT() takes it from the room. */
static __always_inline void draft_text(struct scratch *s, struct line *line, struct text *text,
				       const void *from, __u64 len, __u32 limit)
{
	__u64 into = from - line->from;
	__u16 cut = 0;

	if (len > limit) {
		cut = TEXT_CUT;
		len = limit;
	}
	if (into < line->len && len <= line->len - into) {
		text->at = into;
	} else {
		text->at = s->held.tail_len - s->held.texts_at;
		len = append_text(s, from, len, limit);
	}
	text->len = len | cut;
}

#define DRAFT_TEXT(s, line, member, from, len)                                                     \
	draft_text(s, line, &(s)->held.draft.texts.member, from, len, TEXT_MAX(member))

/* The address of the client, as realip has set it. */
static __always_inline void draft_remote(struct scratch *s, struct line *line)
{
	struct {
		__u16 family;
		__be16 port;
	} from = {};

	if (s->held.draft.flags & REQUEST_OF_PEER)
		return;
	/* sockaddr_in and sockaddr_in6 both begin with the family and the port. */
	if (!bpf_probe_read_user(&from, sizeof(from), OF_CONNECTION(s, sockaddr)) &&
	    (from.family == AF_INET || from.family == AF_INET6))
		s->held.draft.remote_port = bpf_ntohs(from.port);
	DRAFT_TEXT(s, line, remote_addr, OF_CONNECTION(s, addr_text.data),
		   OF_CONNECTION(s, addr_text.len));
}

/* nginx's address of a QUIC connection, which each datagram has shown to nginx. */
static __always_inline void draft_local_sockaddr(struct scratch *s)
{
	struct address *local = &s->held.draft.local;
	void *sockaddr = OF_CONNECTION(s, local_sockaddr);
	struct {
		__u16 family;
		__be16 port;
		__u32 ipv4; /* or sin6_flowinfo */
		__u8 ipv6[16];
	} from = {};

	bpf_probe_read_user(&from.family, sizeof(from.family), sockaddr);
	if (from.family == AF_INET) {
		bpf_probe_read_user(&from, offsetof(typeof(from), ipv6), sockaddr);
		__builtin_memcpy(local->bytes, &from.ipv4, sizeof(from.ipv4));
	} else if (from.family == AF_INET6) {
		bpf_probe_read_user(&from, sizeof(from), sockaddr);
		__builtin_memcpy(local->bytes, from.ipv6, sizeof(from.ipv6));
	} else {
		return;
	}
	local->family = from.family;
	local->port = bpf_ntohs(from.port);
}

/*
 * The addresses of the socket, if the connection's entry does not have them. In HTTP/2 the
 * ngx_connection_t of a stream has the descriptor of the real connection. In HTTP/3 all clients
 * share a socket, which does not have them.
 */
static __always_inline void draft_addresses(struct scratch *s)
{
	struct sock *sk;

	if (knows_quic() && OF_CONNECTION(s, quic))
		return draft_local_sockaddr(s);
	sk = sock_of(OF_CONNECTION(s, fd));
	if (sk)
		addresses_of(&s->held.draft.local, &s->held.draft.peer, sk);
}

/* The path of a unix listener. It ends with a 0. */
static __always_inline void draft_local_path(struct scratch *s)
{
	void *sockaddr = OF_CONNECTION(s, local_sockaddr);
	__u32 at = s->held.tail_len;
	__u16 family = 0;
	long len;

	bpf_probe_read_user(&family, sizeof(family), sockaddr);
	if (family != AF_UNIX || at > TAIL_BYTES - TEXT_MAX(local_path))
		return;
	at = at_most(at, TAIL_BYTES - TEXT_MAX(local_path));
	len = bpf_probe_read_user_str(&s->held.tail[at], TEXT_MAX(local_path),
				      sockaddr + sizeof(family));
	if (len <= 1)
		return;
	s->held.draft.texts.local_path.at = at - s->held.texts_at;
	s->held.draft.texts.local_path.len = len - 1;
	s->held.tail_len = at + len - 1;
}

/*
 * The server name (SNI) of the TLS handshake. nginx keeps it if a server has that name:
 * ngx_http_ssl_servername().
 */
static __always_inline void draft_server_name(struct scratch *s, struct line *line)
{
	struct ngx_http_connection_t *hc;
	struct ngx_str_t *from, name = {};

	if (!(s->held.draft.flags & REQUEST_TLS))
		return;
	hc = OF_REQUEST(s, http_connection);
	from = NGX_GET_OR(hc, ssl_servername, NULL);
	if (!from)
		return;
	bpf_probe_read_user(&name, sizeof(name), from);
	DRAFT_TEXT(s, line, server_name, name.data, name.len);
}

/*
 * Whether the cache answered, and no upstream was tried. A stale response may also replace one that
 * an upstream failed to give.
 */
static __always_inline bool is_of_cache_alone(struct request_record *d)
{
	return d->cache_status == NGX_HTTP_CACHE_HIT ||
	       d->cache_status == NGX_HTTP_CACHE_UPDATING ||
	       (d->cache_status == NGX_HTTP_CACHE_STALE && !d->upstreams_seen);
}

/*
 * The host of an upstream that no group has, as a variable in `proxy_pass` gives it: u->upstream is
 * not set then. nginx does not set it either when the cache answers:
 * ngx_http_upstream_init_request(). That it is not in the draft says less, since its group may not
 * have been announced.
 */
static __always_inline void draft_resolved(struct scratch *s, struct line *line)
{
	struct ngx_str_t *resolved, host = {};

	if (!(s->held.draft.flags & REQUEST_UPSTREAM) || s->held.draft.upstream ||
	    is_of_cache_alone(&s->held.draft))
		return;
	resolved = host_of_variable(OF_REQUEST(s, upstream));
	if (resolved && !bpf_probe_read_user(&host, sizeof(host), resolved) &&
	    host.len < POINTER_MIN) /* it has no room of its own: a record that is full lacks it */
		draft_text(s, line, &s->held.draft.texts.resolved, host.data, host.len, HOST_MAX);
}

__noinline int draft_texts(struct worker *w, struct scratch *s)
{
	struct ngx_str_t host;
	struct line line;
	__u64 headers;

	if (!w || !s)
		return 0;
	headers = copy_part(s, OF_REQUEST(s, headers_in.headers.part.elts),
			    OF_REQUEST(s, headers_in.headers.part.nelts));
	host = header_value(s, headers, OF_REQUEST(s, headers_in.host));
	s->held.texts_at = s->held.tail_len;
	draft_line(s, &line, &host);
	DRAFT_TEXT(s, &line, method, OF_REQUEST(s, method_name.data),
		   OF_REQUEST(s, method_name.len));
	DRAFT_TEXT(s, &line, request_uri, OF_REQUEST(s, unparsed_uri.data),
		   OF_REQUEST(s, unparsed_uri.len));
	DRAFT_TEXT(s, &line, uri, OF_REQUEST(s, uri.data), OF_REQUEST(s, uri.len));
	/* That of HTTP/2 is a constant of nginx's, whose page need not be in memory. */
	if (OF_REQUEST(s, http_version) != NGX_HTTP_VERSION_20)
		DRAFT_TEXT(s, &line, protocol, OF_REQUEST(s, http_protocol.data),
			   OF_REQUEST(s, http_protocol.len));
	draft_remote(s, &line);
	DRAFT_TEXT(s, &line, host, host.data, host.len);
	if (!s->held.draft.local.family) {
		draft_addresses(s);
		draft_local_path(s);
	}
	draft_server_name(s, &line);
	draft_resolved(s, &line);
	if (traceparents(s, headers) == 1)
		DRAFT_TEXT(s, &line, traceparent, (void *)s->traceparent, s->traceparent_len);
	if (variables_len)
		draft_variables(w, s);
	s->held.draft.texts_len = s->held.tail_len - s->held.texts_at;
	return 0;
}

#endif
