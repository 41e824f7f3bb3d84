/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What nginx has written of a request or a response to a temporary file, since its buffers had no
 * room for it.
 */
#ifndef NGX_BPF_SPILL_BPF_H
#define NGX_BPF_SPILL_BPF_H

#include "kernel.bpf.h"
#include "read.bpf.h"

enum {
	/* A response of fewer bytes is not looked at: it fits into nginx's smallest buffers. */
	SPILL_BYTES_MIN = 4096,
};

/* Members of the copied ngx_http_request_body_t. */
#define OF_BODY(s, member) NGX_IN((s)->state, (struct ngx_http_request_body_t *)NULL, member)

/* The size of a file that nginx has open; 0: it has none. */
static __always_inline __u64 spilt_bytes(struct ngx_file_s *file)
{
	int fd = file ? NGX_GET(file, fd) : 0;

	return fd > 0 ? BPF_CORE_READ(file_of(fd), f_inode, i_size) : 0;
}

/*
 * Bytes of the body that nginx has written to a temporary file. A body that is whole is one buffer
 * in that file, which nginx closes when a response begins: ngx_http_upstream_send_response().
 */
static __always_inline __u64 spilt_body(struct scratch *s)
{
	struct ngx_file_s *file = OF_BODY(s, temp_file);
	struct ngx_chain_s *bufs;
	__u64 bytes;

	if (!file)
		return 0;
	bufs = OF_BODY(s, bufs);
	bytes = bufs ? NGX_GET_OR(NGX_GET(bufs, buf), file_last, 0) : 0;
	return bytes ? bytes : spilt_bytes(file);
}

/*
 * Bytes of the response that the pipe of r->upstream has written to a temporary file. What goes to
 * the cache or is stored (proxy_store) is written to one in any case.
 */
static __always_inline __u64 spilt_response(struct scratch *s)
{
	struct ngx_event_pipe_s *p = OF_UPSTREAM(s, pipe);
	__u64 bytes = spilt_bytes(NGX_GET(p, temp_file));

	return bytes && NGX_GET(p, read) & NGX_EVENT_PIPE_CACHEABLE ? 0 : bytes;
}

#endif
