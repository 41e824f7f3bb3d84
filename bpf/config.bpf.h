/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Settings, which user space writes before the object is loaded, and every capacity that user space
 * does not share. The shared ones are in enum limit of wire.h.
 */
#ifndef NGX_BPF_CONFIG_BPF_H
#define NGX_BPF_CONFIG_BPF_H

#include "wire.h"

/* The verifier knows their values and removes the code that they rule out. */
const volatile bool layout_inferred; /* the layout was inferred from the binary's code */
const volatile __u32 uri_changes_at; /* bits from r->http_connection; 0: it is not known */
const volatile __u32 pid_namespace;  /* inode of the tool's pid namespace: pids are of this one */
const volatile __u32 tool_pid;	     /* of the tool itself */
const volatile bool quic_is_probed;  /* quic_output and quic_close are attached */
const volatile bool waits_are_known; /* wait_ended is attached wherever it has to be */
const volatile bool modules_foreign; /* modules are built in that are not nginx's own */
const volatile __u32 tick_ns; /* of the kernel's timer, by which it notes arrivals; 0: unknown */
const volatile bool by_descriptor;  /* bytes on sockets are seen by system calls */
const volatile bool memory_at_exit; /* process_exit_read is attached */
const volatile bool never;	    /* false: UPROBE() */

/* What is read only where an option asks for it. */
struct asked_name {
	__u64 words[ASKED_NAME_MAX / 8];   /* in lower case; zeros follow */
	__u64 letters[ASKED_NAME_MAX / 8]; /* bit 5 of each byte that is a letter */
	__u64 len;
	__u64 hash; /* nginx's, of a header: ngx_hash_key() */
	/* The same of letters, digits and '-' alone, and with '_': ngx_http_parse_header_line() */
	__u64 plain_hash;
	__u64 word_hash;
};
const volatile __u32 variables_len;
const volatile struct asked_name variables[ASKED_MAX];
const volatile __u32 headers_len;
const volatile struct asked_name headers[ASKED_MAX];
const volatile bool with_connections; /* the ends of connections */
const volatile bool with_tcp;	      /* numbers of TCP connections */
const volatile bool config_lines;     /* where servers and groups stand in the configuration */
const volatile __u64 blocked_min_ns;  /* a worker that is away for so long is reported; 0: none */

/* Filters. */
const volatile __u64 filter_sample;	     /* keep one request in so many; 0 and 1: all */
const volatile __u64 filter_min_duration_ns; /* 0: any */
const volatile bool filter_by_status;
const volatile __u64 filter_statuses[STATUS_WORDS]; /* bit n is set: keep status n */

/* Room for the members of struct request_texts at their longest: TEXT_MAX() of the same name. */
struct texts_room {
	__u8 method[METHOD_MAX];
	__u8 request_uri[URI_MAX];
	__u8 uri[URI_MAX];
	__u8 host[HOST_MAX];
	__u8 protocol[PROTOCOL_MAX];
	__u8 remote_addr[ADDR_MAX];
	__u8 local_path[ADDR_MAX];
	__u8 server_name[HOST_MAX];
	__u8 traceparent[TRACEPARENT_MAX];
};

#define TEXT_MAX(member) sizeof(((struct texts_room *)0)->member)

enum capacity {
	/* Room for every part of a record at its longest. */
	ATTEMPT_BYTES = sizeof(struct attempt) + ADDR_MAX,
	SUBREQUEST_BYTES = sizeof(struct subrequest) + SUBREQUEST_URI_MAX +
			   SUBREQUEST_ATTEMPTS_MAX * ATTEMPT_BYTES,
	TAIL_BYTES = ATTEMPTS_MAX * ATTEMPT_BYTES + sizeof(struct texts_room) +
		     SUBREQUESTS_MAX * SUBREQUEST_BYTES,
	/* Room for copies of nginx's memory. */
	REQUEST_HEAD_BYTES = 128, /* an ngx_http_request_t, at least up to r->upstream */
	HEADER_BYTES = 64,	  /* an ngx_table_elt_t at most */
	PART_HEADERS_MAX = 20,	  /* headers in a part: ngx_http_alloc_request() */
	HEADERS_BYTES = PART_HEADERS_MAX * HEADER_BYTES,
	PARTS_MAX = 9, /* parts of a request's headers that are searched */
	/* Entries of the maps. */
	CONNECTIONS_MAX = 1 << 18,
	MULTIPLEXES_MAX = 1 << 16,
	SUBREQUESTS_IN_FLIGHT_MAX = 1 << 16,
	PROCESS_EVENTS_MAX = 4096,
	/* Of an HTTP/2 connection. */
	INPUTS_MAX = 64,   /* a power of two */
	OUTPUTS_MAX = 64,  /* a power of two */
	BODIES_MAX = 8,	   /* streams whose body is followed at the same time */
	FRAMES_MAX = 1024, /* frames of a round, the newest */
	/* Of a worker that serves HTTP/3. */
	OPENING_ROWS = 8,    /* a power of two: a client's connection has one of them */
	OPENING_OF_ROW = 16, /* a power of two: streams */
	OPENING_MAX = OPENING_ROWS * OPENING_OF_ROW,
	HELD_OF_CONNECTION_MAX = 64, /* responses that are waited for */
	DATAGRAM_SOCKETS_MAX = 4,    /* sockets */
	QUIC_FRAMES_MAX = 4096,	     /* frames of a send */
	/* The most steps of a walk: walk.bpf.h. */
	STEPS_MAX = QUIC_FRAMES_MAX,
	/* Of Euclid's algorithm: two numbers that have the size of a struct as a factor. */
	GCD_STEPS = 32,
	/* Levels of pid namespaces: MAX_PID_NS_LEVEL, and the initial one. */
	PID_NAMESPACES_MAX = 33,
	/*
	 * The reader is woken each time this much more is waiting. Otherwise it comes by itself, on
	 * its timer: a wake-up is an interrupt, and one a record would cost more than all the rest.
	 */
	WAKEUP_BYTES = RING_BYTES / 8,
	/*
	 * A blocked worker's record waits for the requests that have waited for it. They were read
	 * when the worker sleeps again, or after so many turns of its event loop.
	 */
	BACKLOG_TURNS_MAX = 64,
	PARTS_OF_BLOCK = 64, /* a part of it that is shorter than one in so many is not kept */
};

_Static_assert(sizeof(struct texts_room) + HOST_MAX + 2 * ASKED_MAX * ASKED_VALUE_MAX < TEXT_CUT,
	       "offsets and lengths of texts have 15 bits");
_Static_assert(sizeof(struct request_record) + TAIL_BYTES < WAKEUP_BYTES, "the ring has room");

#endif
