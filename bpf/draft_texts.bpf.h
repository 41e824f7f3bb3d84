/* SPDX-License-Identifier: GPL-2.0-only */
/* The texts of a record: the request line, the host, addresses, the name and the trace asked for.
 */
#ifndef NGX_BPF_DRAFT_TEXTS_BPF_H
#define NGX_BPF_DRAFT_TEXTS_BPF_H

#include "http3.bpf.h"
#include "traceparent.bpf.h"

/*
 * The request line, as nginx has it in its buffer: method, uri and protocol of HTTP/1 are parts of
 * it, and so is `$uri` where nothing in it was decoded; mostly the host follows at once. Copied
 * once, at the head of the texts.
 */
struct line {
	const void *from;
	__u64 len; /* 0: not copied */
};

static __always_inline void draft_line(struct worker *w, struct line *line, struct ngx_str_t *host)
{
	const void *end = OF_REQUEST(w, http_protocol.data) + OF_REQUEST(w, http_protocol.len);
	__u64 gap = (const void *)host->data - end, len;

	line->from = OF_REQUEST(w, method_name.data);
	if (gap <= sizeof("\r\nHost: ") && host->len <= HOST_MAX)
		end = host->data + host->len;
	len = end - line->from;
	line->len = len <= URI_MAX ? append_text(w, line->from, len, URI_MAX) : 0;
}

/* One text of the request. `limit` is a constant. */
static __always_inline void draft_text(struct worker *w, struct line *line, enum request_text text,
				       const void *from, __u64 len, __u32 limit)
{
	__u64 into = from - line->from;

	if (len > limit) {
		w->held.draft.text_cut |= 1 << text;
		len = limit;
	}
	if (into < line->len && len <= line->len - into) {
		w->held.draft.text_at[text] = into;
		w->held.draft.text_len[text] = len;
		return;
	}
	w->held.draft.text_at[text] = w->held.tail_len - w->held.texts_at;
	w->held.draft.text_len[text] = append_text(w, from, len, limit);
}

/* Likewise, of a string of nginx. */
static __always_inline void draft_str(struct worker *w, struct line *line, enum request_text text,
				      struct ngx_str_t *from, __u32 limit)
{
	struct ngx_str_t str = {};

	bpf_probe_read_user(&str, sizeof(str), from);
	draft_text(w, line, text, str.data, str.len, limit);
}

/* nginx's end of a connection, as it is told with each datagram. */
static __always_inline void draft_local_sockaddr(struct worker *w)
{
	struct address *local = &w->held.draft.local;
	void *sockaddr = OF_CONNECTION(w, local_sockaddr);
	struct {
		__u16 family;
		__be16 port;
		__u32 ipv4; /* or a part of what stands before the other */
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
 * The addresses of the socket where the connection's entry does not have them: HTTP/2 gives each
 * stream a connection of its own, with the descriptor of the real one. HTTP/3 has one socket for
 * all clients, which tells nothing.
 */
static __always_inline void draft_addresses(struct worker *w)
{
	struct sock *sk;

	if (knows_quic() && OF_CONNECTION(w, quic))
		return draft_local_sockaddr(w);
	sk = sock_of(OF_CONNECTION(w, fd));
	if (sk)
		addresses_of(&w->held.draft.local, &w->held.draft.peer, sk);
}

/* The path of a unix listener, which ends with a 0. */
static __always_inline void draft_local_path(struct worker *w)
{
	void *sockaddr = OF_CONNECTION(w, local_sockaddr);
	__u32 at = w->held.tail_len;
	__u16 family = 0;
	long len;

	bpf_probe_read_user(&family, sizeof(family), sockaddr);
	if (family != AF_UNIX || at > TAIL_BYTES - ADDR_MAX)
		return;
	len = bpf_probe_read_user_str(&w->held.tail[at], ADDR_MAX, sockaddr + sizeof(family));
	if (len <= 1)
		return;
	w->held.draft.text_at[TEXT_LOCAL_PATH] = at - w->held.texts_at;
	w->held.draft.text_len[TEXT_LOCAL_PATH] = len - 1;
	w->held.tail_len = at + len - 1;
}

/*
 * The name that the client asked for in its handshake. nginx keeps it where a server has that name:
 * ngx_http_ssl_servername().
 */
static __always_inline void draft_server_name(struct worker *w, struct line *line)
{
	struct ngx_http_connection_t *hc;
	struct ngx_str_t *name;

	if (!(w->held.draft.flags & REQUEST_TLS))
		return;
	hc = OF_REQUEST(w, http_connection);
	name = NGX_GET_OR(hc, ssl_servername, NULL);
	if (name)
		draft_str(w, line, TEXT_SERVER_NAME, name, HOST_MAX);
}

static __always_inline void draft_texts(struct worker *w)
{
	struct ngx_str_t host;
	struct line line;
	__u64 headers;

	headers = copy_part(w, OF_REQUEST(w, headers_in.headers.part.elts),
			    OF_REQUEST(w, headers_in.headers.part.nelts));
	host = header_value(w, headers, OF_REQUEST(w, headers_in.host));
	w->held.texts_at = w->held.tail_len;
	draft_line(w, &line, &host);
	draft_text(w, &line, TEXT_METHOD, OF_REQUEST(w, method_name.data),
		   OF_REQUEST(w, method_name.len), METHOD_MAX);
	draft_text(w, &line, TEXT_REQUEST_URI, OF_REQUEST(w, unparsed_uri.data),
		   OF_REQUEST(w, unparsed_uri.len), URI_MAX);
	draft_text(w, &line, TEXT_URI, OF_REQUEST(w, uri.data), OF_REQUEST(w, uri.len), URI_MAX);
	draft_text(w, &line, TEXT_PROTOCOL, OF_REQUEST(w, http_protocol.data),
		   OF_REQUEST(w, http_protocol.len), PROTOCOL_MAX);
	draft_text(w, &line, TEXT_REMOTE_ADDR, OF_CONNECTION(w, addr_text.data),
		   OF_CONNECTION(w, addr_text.len), ADDR_MAX);
	draft_text(w, &line, TEXT_HOST, host.data, host.len, HOST_MAX);
	if (!w->held.draft.local.family) {
		draft_addresses(w);
		draft_local_path(w);
	}
	draft_server_name(w, &line);
	if (traceparents(w, headers) == 1)
		draft_text(w, &line, TEXT_TRACEPARENT, (void *)w->traceparent, w->traceparent_len,
			   TRACEPARENT_MAX);
	w->held.draft.texts_len = w->held.tail_len - w->held.texts_at;
}

#endif
