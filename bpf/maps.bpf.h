/* SPDX-License-Identifier: GPL-2.0-only */
/* Every map, and what it holds. Nothing is pinned: all of it goes with the last descriptor. */
#ifndef NGX_BPF_MAPS_BPF_H
#define NGX_BPF_MAPS_BPF_H

#include "wire.h"

enum {
	/* Room for every part of a record at its longest. */
	SUBREQUEST_BYTES = sizeof(struct subrequest) + SUBREQUEST_URI_MAX +
			   SUBREQUEST_ATTEMPTS_MAX * (sizeof(struct attempt) + ADDR_MAX),
	TAIL_BYTES = ATTEMPTS_MAX * (sizeof(struct attempt) + ADDR_MAX) + METHOD_MAX + 2 * URI_MAX +
		     SUBREQUESTS_MAX * SUBREQUEST_BYTES + 2 * HOST_MAX + PROTOCOL_MAX +
		     2 * ADDR_MAX + TRACEPARENT_MAX,
	REQUEST_HEAD_BYTES = 128,	   /* of an ngx_http_request_t, to its pool at least */
	HEADER_BYTES = 64,		   /* of an ngx_table_elt_t at most */
	HEADERS_BYTES = 20 * HEADER_BYTES, /* of a part: ngx_http_alloc_request() */
	CONNECTIONS_MAX = 1 << 18,
	MULTIPLEXES_MAX = 1 << 16,
	SUBREQUESTS_IN_FLIGHT_MAX = 1 << 16,
	INPUTS_MAX = 64,   /* a power of two */
	OUTPUTS_MAX = 64,  /* likewise */
	FRAMES_MAX = 1024, /* of a round, the newest */
	UPGRADES_MAX = 64,
	OPENING_MAX = 128,	  /* a power of two: as many as nginx lets a client have at once */
	DATAGRAM_SOCKETS_MAX = 4, /* of a worker, on which it serves HTTP/3 */
	QUIC_FRAMES_MAX = 4096,	  /* of a send */
	HELD_MAX = 1024,
	BODIES_MAX = 8, /* of a connection of HTTP/2: streams that still send one */
};

/* Settings: written before the object is loaded, and the verifier drops what they rule out. */
const volatile bool layout_inferred; /* no one states this layout, it is the one that fits */
const volatile __u32 pid_namespace;  /* inode of the one that pids are told in, the tool's own */
const volatile bool quic_is_probed;  /* what nginx sends over QUIC is seen */
const volatile bool by_descriptor;   /* system calls tell of the bytes on sockets */

enum worker_flag {
	WORKER_FOLLOW = 1, /* a master: the processes it starts are traced too */
	WORKER_OTHER = 2,  /* runs another program by now: not traced here */
};

/* The last read from a socket that is no stream. */
struct datagram {
	__u64 sk;
	__u64 at_ns;
};

/* An ngx_array_t, which is the same in every release. */
struct array {
	__u64 elts;
	__u64 nelts;
	__u64 size;
};

/* A traced process. One record is drafted at a time: nginx ends requests in its main thread. */
struct worker {
	__u32 flags;
	__u32 pid;
	__u64 program;	  /* inode that it was started from; 0: not known */
	__u64 accepted;	  /* the ngx_connection_t that was initialised last */
	__u64 plain_recv; /* c->recv of connections that are not encrypted; 0: not yet seen */
	__u64 generation; /* the last one given to a request */
	__u64 quic;	  /* the ngx_connection_t that sends over QUIC; 0: none has yet */
	__u64 held_len;	  /* of its requests in held_requests */
	__u64 opening_len;
	__u64 opening_kept; /* of these, while they are walked through: those that still have none
			     */
	__u64 opening[OPENING_MAX]; /* streams of HTTP/3 without a whole header or body:
				       ngx_connection_t */
	struct datagram datagrams[DATAGRAM_SOCKETS_MAX];
	__u8 head[REQUEST_HEAD_BYTES];	   /* copy of an ngx_http_request_t up to its pool */
	__u8 request[STRUCT_BYTES_MAX];	   /* copy of the one that ends */
	__u8 connection[STRUCT_BYTES_MAX]; /* copy of its ngx_connection_t */
	__u8 state[STRUCT_BYTES_MAX];	   /* copy of an ngx_http_upstream_state_t of it */
	__u8 headers[HEADERS_BYTES];	   /* copy of a part of its r->headers_in.headers */
	__u64 traceparent;		   /* where the value of such a header is */
	__u64 traceparent_len;
	/* Not on the stack, of which a call and what it calls share 512 bytes before Linux 6.13. */
	struct attempt attempt;
	struct subrequest subrequest;
	struct array states;
	/* From here on as struct held. */
	__u32 tail_len; /* of `tail`, as far as it is drafted */
	__u32 texts_at; /* where the request's texts begin in it */
	struct request_record draft;
	__u8 tail[TAIL_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct worker);
} workers SEC(".maps");

/* Pids of traced processes that have executed a program: the masters of an upgrade. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, UPGRADES_MAX);
	__type(value, __u32);
} upgrades SEC(".maps");

/* A request whose response nginx has not yet sent to its end: over HTTP/3 it frees it before. */
struct held {
	__u32 tail_len;
	__u32 texts_at;
	struct request_record draft;
	__u8 tail[TAIL_BYTES];
};

_Static_assert(sizeof(struct held) ==
		       sizeof(struct worker) - __builtin_offsetof(struct worker, tail_len),
	       "struct worker ends as struct held does");

/* A stream of QUIC. */
struct stream_key {
	__u32 pid; /* the first member of every key */
	__u32 pad;
	__u64 connection; /* ngx_connection_t of what it is on; 0: none */
	__u64 id;
};

enum socket_kind {
	SOCKET_UNKNOWN = 0,
	SOCKET_CLIENT = 1,
	SOCKET_UPSTREAM = 2,
};

enum upstream_phase {
	UPSTREAM_IDLE = 0, /* the next bytes out begin an attempt, or follow a connect */
	UPSTREAM_SENDING = 1,
	UPSTREAM_RECEIVING = 2,
};

/* What the socket of a connection told of its TLS handshake. */
struct handshake {
	__u64 first_ns;
	__u64 last_ns;
	__u32 is_over;	 /* or there is none */
	__u16 is_tls;	 /* until it is over: as far as is known */
	__u16 is_unseen; /* what was taken for something else may have been the handshake's */
};

/* What a socket of a traced process is to nginx. */
struct socket_state {
	__u64 connection; /* the ngx_connection_t that nginx registered with epoll */
	__u64 client;	  /* upstream: the client's ngx_connection_t it works for; 0: none */
	__u64 generation; /* upstream: of the request it works for */
	__u64 subrequest; /* upstream: of that, if it works for one; 0: none */
	__u64 connect_ns; /* upstream: the connect that no bytes have followed yet */
	struct handshake handshake; /* upstream */
	__u64 sent;		    /* upstream, encrypted: c->sent at the last send */
	__u32 kind;
	__u32 phase;
	__u32 slot;  /* upstream: of the attempt in struct connection */
	__u32 pid;   /* the worker that has it */
	__u8 served; /* upstream: a request was sent on it */
	__u8 is_unix;
	__u8 is_http2;	 /* upstream: told by its first request */
	__u8 is_drained; /* what was read before has been taken: there was nothing more to read */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_state);
} sockets SEC(".maps");

struct descriptor_key {
	__u32 pid;
	__u32 fd;
};

/* Likewise, where system calls tell: they know a descriptor, and no socket to keep it with. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, struct descriptor_key);
	__type(value, struct socket_state);
} descriptors SEC(".maps");

/* What the socket of an attempt told. */
struct attempt_times {
	__u64 generation; /* of the request it belongs to */
	__u64 connect_ns;
	__u64 request_first_ns;
	__u64 request_last_ns;
	__u64 response_first_ns;
	__u64 response_last_ns;
	__u64 handshake_first_ns;
	__u64 handshake_last_ns;
	__u64 unsure_ns;       /* over TLS: the last read; 0: it may have brought an alert only */
	__s64 unsure_received; /* bytes of the response that nginx had before it */
	__u64 connection;      /* the ngx_connection_t of its socket */
	__u64 number;	       /* its c->number, which no other connection has */
	__u32 flags;
	__u32 index;
};

/*
 * Bytes sent on an encrypted connection: those of the response when c->sent has grown behind them,
 * as it does not for an alert (close_notify), which nginx may send before the request ends.
 */
struct unsure {
	__u64 first_ns;
	__u64 last_ns;
	__u64 sent; /* c->sent when they were */
};

/* Whether a request is told of, as far as --sample decides it. */
enum sample {
	SAMPLE_UNASKED = 0,
	SAMPLE_IN = 1,
	SAMPLE_OUT = 2,
};

/* A client's connection, and the one request that is in flight on it; or one of its streams. */
struct connection {
	__u64 accepted_ns;
	__u64 generation; /* of the request in flight: no other request of this worker has it */
	__u64 request;	  /* its ngx_http_request_t; 0: not yet asked for */
	__u64 http_connection; /* c->data between requests; 0: before the end of the first */
	__u64 previous_ended_ns;
	__u64 previous_read_ns; /* the last read before that: it may have brought this request, too
				 */
	__u64 last_read_ns;
	__u64 request_first_ns;
	__u64 header_ns;
	__u64 body_ns; /* the last read before which the body was not whole */
	__u64 response_first_ns;
	__u64 response_last_ns;
	struct handshake handshake;
	struct unsure unsure;
	__u64 first_round;    /* of a stream: of struct multiplex, in which its response began */
	__u64 last_round;     /* likewise: in which it went on last */
	__u64 is_multiplexed; /* streams have an entry of their own: struct multiplex */
	struct stream_key stream; /* HTTP/3 */
	__u64 is_over;		  /* HTTP/3: nothing more is sent */
	__u64 sample;		  /* enum sample, of the request in flight */
	struct attempt_times attempts[ATTEMPTS_MAX];
	__u64 subrequests[SUBREQUESTS_MAX]; /* ngx_http_request_t of each that had an upstream */
	__u32 subrequests_seen;
	__u32 flags; /* REQUEST_ADOPTED */
	__u64 sk;    /* its socket, when that has been seen */
	__u32 fd;    /* likewise */
	__u8 is_stream;
	__u8 is_body_unsure; /* of a stream: a read may have brought its body, and none looked */
	__u16 pad;
	struct address local;
	struct address peer;
};

struct connection_key {
	__u32 pid;
	__u32 pad;
	__u64 connection; /* ngx_connection_t */
};

/*
 * One entry for each ngx_connection_t that a live process has used for a client: nginx takes them
 * from an array and uses them again, so that worker_connections bounds this map.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS_MAX);
	__type(key, struct connection_key);
	__type(value, struct connection);
} connections SEC(".maps");

/* The attempts of a subrequest. Its ngx_http_request_t lives as long as that of the main request.
 */
struct subrequest_times {
	struct attempt_times attempts[SUBREQUEST_ATTEMPTS_MAX];
};

/* Keyed by its ngx_http_request_t. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, SUBREQUESTS_IN_FLIGHT_MAX);
	__type(key, struct connection_key);
	__type(value, struct subrequest_times);
} subrequests SEC(".maps");

/* A read that made streams. */
struct input {
	__u64 streams; /* that the connection had had behind it */
	__u64 at_ns;
};

/* What was sent in one round. */
struct output {
	__u64 round; /* from 1 */
	__u64 first_ns;
	__u64 last_ns;
};

/* What the streams of an HTTP/2 connection share. */
struct multiplex {
	__u64 streams; /* that reads before the last one made */
	__u64 round;   /* in which nginx sends; 0: none yet */
	__u32 is_blocked;
	__u32 inputs_seen;
	struct input inputs[INPUTS_MAX];
	__u64 bodies[BODIES_MAX]; /* ngx_connection_t of streams whose body is not whole; 0: free */
	struct output outputs[OUTPUTS_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MULTIPLEXES_MAX);
	__type(key, struct connection_key);
	__type(value, struct multiplex);
} multiplexes SEC(".maps");

/* From streams of QUIC to their ngx_connection_t, each of which has one of them at a time. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MULTIPLEXES_MAX);
	__type(key, struct stream_key);
	__type(value, __u64);
} quic_streams SEC(".maps");

/* Small: a connection that ends goes through all of it, where its worker has one in it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, HELD_MAX);
	__type(key, struct stream_key);
	__type(value, struct held);
} held_requests SEC(".maps");

/* To walk lists with: a step is an element of it, since bpf_loop() came with Linux 5.17 only. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUIC_FRAMES_MAX); /* the most that a walk takes */
	__type(key, __u32);
	__type(value, __u32);
} steps SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} events SEC(".maps");

/* Set once everything is attached: no request is seen by half of the probes. */
bool active = false;

struct counters counters = {};

#endif
