/* SPDX-License-Identifier: GPL-2.0-only */
/* QUIC: which ngx_connection_t is a stream, and when datagrams were read. */
#ifndef NGX_BPF_QUIC_BPF_H
#define NGX_BPF_QUIC_BPF_H

#include "connection.bpf.h"

/* The stream of an ngx_connection_t; NULL: it is a connection. */
static __always_inline struct ngx_quic_stream_s *quic_stream_of(struct ngx_connection_s *c)
{
	return knows_quic() ? NGX_GET(c, quic) : NULL;
}

/* The time of the last read from a connection's socket; 0: not seen. */
static __always_inline __u64 datagram_ns(struct worker *w, struct ngx_connection_s *c)
{
	__u64 sk = (__u64)sock_of(NGX_GET(c, fd));

	for (__u32 i = 0; sk && i < DATAGRAM_SOCKETS_MAX; i++) {
		if (w->datagrams[i].sk == sk)
			return w->datagrams[i].at_ns;
	}
	return 0;
}

/* Removes the key of a stream, unless a later stream has the same one. */
static __always_inline void quic_stream_forget(struct connection *conn, __u64 c)
{
	__u64 *value = bpf_map_lookup_elem(&quic_streams, &conn->stream);

	if (value && *value == c)
		bpf_map_delete_elem(&quic_streams, &conn->stream);
}

/* A stream of HTTP/2 or HTTP/3 ends, and its ngx_connection_t with it. */
static __always_inline void stream_forget(struct worker *w, struct connection *conn, __u64 c)
{
	if (conn->stream.connection)
		quic_stream_forget(conn, c);
	connection_forget(w, c);
}

#endif
