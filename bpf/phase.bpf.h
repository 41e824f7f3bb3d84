/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The handlers of nginx's phases: which of them handles a request. A handler that refuses a request
 * is the last one, unless error_page redirects the request.
 */
#ifndef NGX_BPF_PHASE_BPF_H
#define NGX_BPF_PHASE_BPF_H

#include "read.bpf.h"

enum {
	/* Handlers of phases that are looked at. nginx's own modules have fewer than 40. */
	PHASE_HANDLERS_MAX = 64,
	PHASE_HANDLER_BYTES = 24, /* sizeof(ngx_http_phase_handler_t) */
	PHASE_HANDLER = 8,	  /* offsetof(ngx_http_phase_handler_t, handler) */
};

/* The array of all handlers, by r->main_conf; NULL: it cannot be read. */
static __always_inline void *phase_handlers(void **main_conf)
{
	void *handlers = NULL, *cmcf = NULL;

	/* ngx_http_core_module is the first one: place.bpf.h. */
	if (bpf_probe_read_user(&cmcf, sizeof(cmcf), main_conf) ||
	    bpf_probe_read_user(&handlers, sizeof(handlers),
				cmcf + NGX_HTTP_CORE_MAIN_CONF_HANDLERS))
		return NULL;
	return handlers;
}

/* The function that handles the phase with this index; 0: there is none, or it cannot be read. */
static __always_inline __u64 phase_handler(void *handlers, __u64 index)
{
	__u64 handler = 0;

	bpf_probe_read_user(&handler, sizeof(handler),
			    handlers + index * PHASE_HANDLER_BYTES + PHASE_HANDLER);
	return handler;
}

/*
 * Whether limit_req or limit_conn has refused the request that ends, and has answered it itself.
 * Then its handler was the last one.
 */
static __always_inline bool is_limited(struct worker *w, struct scratch *s)
{
	struct ngx_http_request_s *r = NULL;
	__u64 handler, index;
	__s64 limiter;

	if (!(w->limiters[0] | w->limiters[1]) || !bpf_core_field_exists(r->main_conf))
		return false;
	index = *(__u64 *)((void *)s->request + bpf_core_field_offset(*r, main) +
			   NGX_HTTP_REQUEST_PHASE_HANDLER);
	if (index >= PHASE_HANDLERS_MAX)
		return false;
	handler = phase_handler(phase_handlers(OF_REQUEST(s, main_conf)), index);
	for (__u32 i = 0; i < 2; i++) {
		limiter = w->limiters[i];
		if (limiter && handler == s->probe + limiter)
			return true;
	}
	return false;
}

#endif
