/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Values that options ask for: variables that nginx has evaluated (--variable), and headers of the
 * request (--header). Without these options the verifier removes all of this.
 */
#ifndef NGX_BPF_ASKED_BPF_H
#define NGX_BPF_ASKED_BPF_H

#include "read.bpf.h"
#include "walk.bpf.h"

enum { VARIABLES_WALKED_MAX = 4096 };

/* Sets bit 5 of each byte, which makes a letter lower case. */
#define LOWER_CASE 0x2020202020202020ULL

/* Whether a name of this length in nginx's memory is the wanted one, in any case. */
static __always_inline bool is_asked(const volatile struct asked_name *asked, const void *name,
				     __u64 len)
{
	__u64 words[ASKED_NAME_MAX / 8] = {};

	if (len != asked->len || !len || len > ASKED_NAME_MAX)
		return false;
	if (bpf_probe_read_user(words, at_most(len, ASKED_NAME_MAX), name))
		return false;
	for (__u32 i = 0; i < ASKED_NAME_MAX / 8; i++) {
		/* Bit 5 of a letter does not matter. */
		if ((words[i] | asked->letters[i]) != asked->words[i])
			return false;
	}
	return true;
}

/* The context of a walk through the variables of a configuration. */
struct variable_walk {
	struct worker *w;
	struct array variables;
};

static __always_inline bool variable_step(struct variable_walk *walk, __u32 index)
{
	struct ngx_str_t name = {};
	void *variable = (void *)(walk->variables.elts + index * walk->variables.size);

	if (index >= walk->variables.nelts || bpf_probe_read_user(&name, sizeof(name), variable))
		return false;
	for (__u32 i = 0; i < ASKED_MAX && i < variables_len; i++) {
		if (is_asked(&variables[i], name.data, name.len))
			walk->w->variable_at[i] = index + 1;
	}
	return true;
}

DEFINE_WALK(variable_step, struct variable_walk, VARIABLES_WALKED_MAX)

/* Finds the indices of the variables, once for each configuration of a worker. */
static __always_inline void variables_find(struct worker *w, __u64 main_conf)
{
	struct variable_walk walk = {.w = w};
	void *cmcf = NULL;

	__builtin_memset(w->variable_at, 0, sizeof(w->variable_at));
	w->variables_of = w->flags & WORKER_ALONE ? 0 : main_conf;
	if (bpf_probe_read_user(&cmcf, sizeof(cmcf), (void *)main_conf) ||
	    bpf_probe_read_user(&walk.variables, sizeof(walk.variables),
				cmcf + NGX_HTTP_CORE_MAIN_CONF_VARIABLES))
		return;
	walk_variable_step(&walk);
}

/* Appends a value as a text of the request. */
static __always_inline void asked_text(struct scratch *s, struct text *text, const void *from,
				       __u64 len)
{
	append_cut(s, text, s->held.texts_at, from, len, ASKED_VALUE_MAX);
}

/* The values of the variables that this request has evaluated. */
__noinline int draft_variables(struct worker *w, struct scratch *s)
{
	struct {
		__u64 bits; /* len, and flags */
		void *data;
	} value;
	void *values;
	__u64 main_conf;
	__u32 at;

	if (!w || !s || !bpf_core_field_exists(struct ngx_http_request_s, main_conf))
		return 0;
	main_conf = (__u64)OF_REQUEST(s, main_conf);
	if (w->variables_of != main_conf)
		variables_find(w, main_conf);
	at = bpf_core_field_offset(struct ngx_http_request_s, main) + NGX_HTTP_REQUEST_VARIABLES;
	if (at > REQUEST_BYTES_MAX - sizeof(values))
		return 0;
	values = *(void **)&s->request[at];
	for (__u32 i = 0; i < ASKED_MAX && i < variables_len; i++) {
		if (!w->variable_at[i] ||
		    bpf_probe_read_user(&value, sizeof(value),
					values + (w->variable_at[i] - 1) * sizeof(value)))
			continue;
		if ((value.bits & NGX_HTTP_VARIABLE_VALID) &&
		    !(value.bits & NGX_HTTP_VARIABLE_NOT_FOUND))
			asked_text(s, &s->held.draft.texts.variables[i], value.data,
				   value.bits & NGX_HTTP_VARIABLE_LEN);
	}
	return 0;
}

/*
 * Searches the copy of a part of the headers. Of several with one name the first counts, also when
 * it is empty: `at` shows that there was one, since the request line comes before all of them.
 */
__noinline int headers_of_part(struct scratch *s, __u64 bytes)
{
	__u64 size, at = 0;
	struct text *text;
	void *elt;
	__u32 i;

	if (!s)
		return 0;
	size = OF_REQUEST(s, headers_in.headers.size);
	for (__u32 n = 0; n < PART_HEADERS_MAX && at < bytes; n++, at += size) {
		barrier_var(at);
		if (at > HEADERS_BYTES - HEADER_BYTES)
			break;
		elt = &s->headers[at];
		for (i = 0; i < ASKED_MAX && i < headers_len; i++) {
			/* Names of one hash mostly differ by bytes that nginx does not hash. */
			if (headers[i].len != OF_HEADER(elt, key.len))
				continue;
			if (headers[i].hash == OF_HEADER(elt, hash) ||
			    headers[i].plain_hash == OF_HEADER(elt, hash) ||
			    headers[i].word_hash == OF_HEADER(elt, hash))
				break;
		}
		barrier_var(i); /* one state for the verifier, whichever it is */
		if (i >= ASKED_MAX || i >= headers_len)
			continue;
		text = &s->held.draft.texts.headers[i];
		if (!text->at &&
		    is_asked(&headers[i], OF_HEADER(elt, key.data), OF_HEADER(elt, key.len)))
			asked_text(s, text, OF_HEADER(elt, value.data), OF_HEADER(elt, value.len));
	}
	return 0;
}

#endif
