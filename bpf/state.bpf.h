/* SPDX-License-Identifier: GPL-2.0-only */
/* The structs that are kept between events: those that maps hold, and their keys. */
#ifndef NGX_BPF_STATE_BPF_H
#define NGX_BPF_STATE_BPF_H

#include "config.bpf.h"

/* A record with its tail: while it is drafted, or while its response is not sent to the end. */
struct held {
	__u32 tail_len; /* bytes of `tail` that are drafted */
	__u32 texts_at; /* where the request's texts begin in it */
	struct request_record draft;
	__u8 tail[TAIL_BYTES];
};

enum worker_flag {
	WORKER_FOLLOW = 1, /* a master: the processes that it starts are traced too */
	WORKER_OTHER = 2,  /* it has executed another program since: not traced with this layout */
	WORKER_ALONE = 4,  /* it has no master: it may read its configuration again */
};

/* What BPF reports of a traced process to user space. */
enum process_event_kind {
	PROCESS_EXECUTED = 1, /* it has executed a program: the master of an upgrade */
	PROCESS_UNTRACED = 2, /* it is a master's child, and there was no memory to trace it */
	PROCESS_ENDED = 3,
};

struct process_event {
	__u32 pid;
	__u32 kind;	 /* enum process_event_kind */
	__u64 ended_ns;	 /* of one that has ended: when */
	__u32 container; /* and user space's number of its container; 0: none */
	__u32 pad;
};

/* A traced process that is alive: what the iterator traced_tasks writes. */
struct traced_task {
	__u32 pid;
	__u32 binary;
	__u32 container;
};

/* A file that a process has mapped: what the iterator mapped_files writes. */
struct mapped_file {
	__u64 start; /* the address of the mapping */
	__u64 inode; /* the kernel's inode: of the layer that has the file, if it is on an overlay
		      */
};

/* A listening TCP socket of a process: what the iterator listeners writes. */
struct listener {
	__u64 inode; /* of the socket: no other one has it while this one is open */
	struct address address;
	__u32 waiting;	   /* connections that wait until they are accepted */
	__u32 waiting_max; /* when more than these wait, the kernel drops */
	__u32 drops;	   /* segments that the kernel has dropped since the socket was made */
};

/* The last read from a datagram socket. */
struct datagram {
	__u64 sk;
	__u64 at_ns;
};

/* A stream of which more is to come: watch.bpf.h. */
struct watch {
	__u64 connection; /* its ngx_connection_t; 0: this is free */
	__u64 generation; /* of its entry */
	__u64 word; /* an address that has `value` as long as the stream is incomplete; 0: none */
	__u64 value;
};

/* An ngx_array_t, which has the same layout in every release. */
struct array {
	__u64 elts;
	__u64 nelts;
	__u64 size;
};

/* A traced process: what is kept of it between events. */
struct worker {
	__u32 flags; /* enum worker_flag */
	__u32 pid;
	__u32 layout;	 /* its layout: the index of the programs in every map of programs */
	__u32 binary;	 /* user space's number of the file that it executes */
	__u32 container; /* user space's number of its container; 0: none */
	__u32 pad;
	__s32 limiters[2];	/* handlers of limit_req and limit_conn, from the probe in
				   ngx_http_free_request(); 0: not known */
	__u64 program;		/* inode of its executable when it was started; 0: not known */
	__u64 accepted;		/* the last ngx_connection_t that was initialised */
	__u64 plain_recv;	/* c->recv of connections that are not encrypted; 0: not yet seen */
	__u64 generation;	/* the last number given to a request */
	__u64 answer_ns;	/* the last read, if it was of a datagram; else 0 */
	__u64 answer_sk;	/* its socket */
	__u64 quic;		/* the ngx_connection_t that sends over QUIC now; 0: none yet */
	__u64 connections_from; /* the first ngx_connection_t of a client; 0: none was seen */
	__u64 connections_to;	/* the last one */
	__u64 connections_stride;	   /* all are a multiple of this apart; 0: there is one */
	__u64 held_len;			   /* entries of held_requests that are its own */
	__u64 opening_kept;		   /* entries that the walk under way has kept so far */
	__u64 opening_evicted;		   /* entries that have made room for others */
	__u64 opening_ns;		   /* the last datagram */
	__u8 opening_len[OPENING_ROWS];	   /* entries of each row of `opening` */
	struct watch opening[OPENING_MAX]; /* HTTP/3 streams with an incomplete header or body */
	struct datagram datagrams[DATAGRAM_SOCKETS_MAX];
	__u8 head[REQUEST_BYTES_MAX];	 /* copy of the beginning of an ngx_http_request_t */
	__u8 peer[CONNECTION_BYTES_MAX]; /* copy of an ngx_connection_t */
	__u64 variables_of;		 /* r->main_conf that the next member belongs to */
	__u16 variable_at[ASKED_MAX];	 /* of each of --variable, 1 + its index in r->variables; 0:
					    none */
	__u64 places[PLACE_SLOTS]; /* those that user space knows, by their slots: place.bpf.h */
};

/*
 * The kernel allocates it when a process forks. A newer one (7.3) does so with kmalloc_nolock(),
 * which has at most 8 KiB; a part of them is the kernel's own.
 */
_Static_assert(sizeof(struct worker) <= 8000, "kmalloc_nolock() can allocate a worker's storage");

/* Why a worker has left its CPU. */
enum off_cpu {
	OFF_NOT = 0,  /* it runs, or nothing was seen of it yet */
	OFF_IDLE = 1, /* it waits for events */
	OFF_RUNNABLE = 2,
	OFF_IO = 3,
	OFF_SLEEP = 4,
};

/* A worker's turn of its event loop (--blocked): turn.bpf.h. It has a map of its own. */
struct turn {
	__u64 since_ns; /* when the turn began; 0: that is not known */
	__u64 left_ns;	/* when the worker has last left its CPU */
	__u64 came_ns;	/* when it has got one again */
	__u64 delay_ns; /* task->sched_info.run_delay when it left */
	__u64 io_ns;
	__u64 runqueue_ns;
	__u64 sleep_ns;
	__u32 off;		/* enum off_cpu, until settled */
	__u32 has_idled;	/* it waits with epoll */
	__u32 has_backlog;	/* `blocked` waits for the requests that have waited */
	__u32 turns;		/* since then */
	__u64 seen_ns;		/* when `last` was taken of a worker that ran */
	__u64 is_changing;	/* turn_next() changes this, and may be interrupted by a sample */
	struct waiters waiters; /* in this turn */
	struct snapshot last;	/* when it last left its CPU, or a sample since then */
	struct snapshot longest;
	struct blocked_record blocked;
};

/* As for struct worker. */
_Static_assert(sizeof(struct turn) <= 8000, "kmalloc_nolock() can allocate a turn");

/*
 * What is used while one request ends. It is not in struct worker, which may not be that large, and
 * not on the stack: a call chain shares 512 bytes of it.
 */
struct scratch {
	__u64 is_taken;			 /* a run of the program has claimed it: scratch.bpf.h */
	__u64 empty_handler;		 /* ngx_http_request_empty_handler(); 0: not known */
	__u64 probe;			 /* the probed instruction of ngx_http_free_request() */
	__u8 request[REQUEST_BYTES_MAX]; /* copy of the ngx_http_request_t that ends */
	__u8 connection[CONNECTION_BYTES_MAX]; /* copy of its ngx_connection_t */
	__u8 upstream[UPSTREAM_BYTES_MAX];     /* copy of its ngx_http_upstream_t */
	__u8 state[STATE_BYTES_MAX];	       /* copy of one of its ngx_http_upstream_state_t */
	__u8 headers[HEADERS_BYTES];	       /* copy of a part of r->headers_in.headers */
	__u64 traceparent;		       /* address of the value of its traceparent header */
	__u64 traceparent_len;
	struct attempt attempt;
	struct subrequest subrequest;
	struct array states;
	struct held held; /* the record that is drafted */
};

/* A stream of QUIC. */
struct stream_key {
	__u32 pid; /* the first member of every key */
	__u32 pad;
	__u64 connection; /* the ngx_connection_t that it is on; 0: this is no stream */
	__u64 id;
};

enum socket_kind {
	SOCKET_UNKNOWN = 0,
	SOCKET_CLIENT = 1,
	SOCKET_UPSTREAM = 2,
};

enum upstream_phase {
	UPSTREAM_IDLE = 0, /* the next bytes sent begin an attempt, or follow a connect */
	UPSTREAM_SENDING = 1,
	UPSTREAM_RECEIVING = 2,
};

/* The TLS handshake of a connection, as its socket shows it. */
struct handshake {
	__u64 first_ns;
	__u64 last_ns;
	__u32 is_over;	 /* or there is none */
	__u16 is_tls;	 /* until it is over: as far as is known */
	__u16 is_unseen; /* bytes that were counted as something else may have been its own */
};

/* The socket may take nothing more of what nginx has to send: stall.bpf.h. */
struct stall {
	__u64 since_ns; /* 0: it took everything */
	__u64 is_sure;	/* nginx has tried to send more in vain */
};

/* A socket of a traced process, and what nginx uses it for. */
struct socket_state {
	__u64 connection; /* the ngx_connection_t that nginx registered with epoll */
	__u64 client;	  /* upstream: the client's ngx_connection_t it works for; 0: none */
	__u64 generation; /* upstream: of the request it works for */
	__u64 subrequest; /* upstream: the ngx_http_request_t of the subrequest; 0: none */
	__u64 connect_ns; /* upstream: the connect, until the first bytes are sent */
	__u64 last_ns;	  /* upstream: the last bytes that were sent or read */
	struct handshake handshake; /* upstream */
	struct stall stall;	    /* upstream */
	__u64 sent;		    /* upstream over TLS: c->sent at the last send */
	__u32 kind;		    /* enum socket_kind */
	__u32 phase;		    /* enum upstream_phase */
	__u32 slot;		    /* upstream: of the attempt in struct connection */
	__u32 pid;		    /* the worker that has it */
	__u8 served;		    /* upstream: a request was sent on it */
	__u8 is_unix;
	__u8 is_http2;	 /* upstream: its first request was HTTP/2 */
	__u8 is_drained; /* the last read found nothing: nginx had taken all there was */
	__u8 is_shaking; /* client: its TLS handshake is under way */
	__u8 pad[3];
};

/* A socket of a process. */
struct socket_key {
	__u32 pid;
	__u32 pad;
	__u64 sk;
};

struct descriptor_key {
	__u32 pid;
	__u32 fd;
};

/* An attempt, as its socket shows it. */
struct attempt_times {
	__u64 generation; /* of the request it belongs to */
	__u64 connect_ns;
	__u64 request_first_ns;
	__u64 request_last_ns;
	__u64 response_first_ns;
	__u64 response_last_ns;
	__u64 handshake_first_ns;
	__u64 handshake_last_ns;
	__u64 header_ns;       /* the last read before which the response's header was incomplete */
	__u64 kept_ns;	       /* the last bytes of its kept connection before it */
	__u64 requests;	       /* c->requests, with this one; 0: not known */
	__u64 stall_ns;	       /* how long its socket took nothing of the request */
	__u64 read_wait_ns;    /* how long the response's first bytes lay in the socket */
	__u64 unsure_ns;       /* over TLS: the last read; 0: it may have been an alert only */
	__s64 unsure_received; /* bytes of the response that nginx had before that read */
	__u64 connection;      /* the ngx_connection_t of its socket */
	__u64 number;	       /* its c->number, which no other connection has */
	__u32 flags;	       /* enum attempt_flag */
	__u32 index;	       /* in r->upstream_states */
};

/*
 * Bytes sent over TLS. They are part of the response if c->sent has grown afterwards. It does not
 * grow for an alert (close_notify), which nginx may send before the request ends.
 */
struct unsure {
	__u64 first_ns;
	__u64 last_ns;
	__u64 sent; /* c->sent when they were sent */
};

/*
 * A client's IPv4 address as nginx had it when it accepted the connection. This memory is the
 * connection's own: it does not change, also where realip shows another address for a while.
 */
struct remote {
	__u64 sockaddr; /* c->sockaddr; 0: it is not IPv4, or was not seen */
	__u64 text;	/* c->addr_text.data */
	__u32 ipv4;	/* in network byte order */
	__u32 port;	/* likewise */
};

/* What is incomplete of an HTTP/3 stream, as far as datagrams have found. */
enum stage {
	STAGE_NONE = 0,	 /* nothing, or no datagram has checked it */
	STAGE_BEGIN = 1, /* nginx has not made a request of it */
	STAGE_HEADER = 2,
	STAGE_BODY = 3,
};

/* Whether --sample keeps a request. */
enum sample {
	SAMPLE_UNASKED = 0,
	SAMPLE_IN = 1,
	SAMPLE_OUT = 2,
};

/* A client's connection, or a stream of one, and the request that is in flight on it. */
struct connection {
	__u64 established_ns; /* the kernel had it; 0: not known */
	__u64 accepted_ns;
	__u64 generation; /* of the request in flight: no other request of this worker has it */
	__u64 request;	  /* its ngx_http_request_t; 0: not yet known */
	__u64 http_connection; /* c->data between requests; 0: before the end of the first */
	__u64 previous_ended_ns;
	__u64 previous_read_ns; /* the last read before that end: it may have brought this request,
				   too */
	__u64 last_read_ns;
	__u64 request_first_ns;
	__u64 header_ns;
	__u64 read_wait_ns; /* how long the header's bytes lay in the socket; HTTP/2: the last
			       read's */
	__u64 body_ns;	    /* the last read before which the body was incomplete */
	__u64 response_first_ns;
	__u64 response_last_ns;
	struct handshake handshake;
	struct unsure unsure;
	struct stall stall;
	__u64 stall_ns;		  /* how long the socket took nothing of the response */
	__u64 waits[WAIT_KINDS];  /* how long nginx made it wait, by enum wait_kind */
	__u64 waited_ns;	  /* when the last of these waits ended */
	__u64 unresolved;	  /* r->upstream whose name was not resolved in time; 0: none */
	__u64 parent;		  /* HTTP/2 stream: the ngx_connection_t that it is on */
	__u64 first_round;	  /* HTTP/2 stream: the round in which its response began */
	__u64 first_sent;	  /* HTTP/2 stream: its c->sent before that round */
	__u64 last_round;	  /* HTTP/2 stream: the last round with a frame of its response */
	__u64 last_sent;	  /* HTTP/2 stream: its c->sent before that round */
	__u64 is_multiplexed;	  /* its streams have entries of their own, and a multiplex */
	struct stream_key stream; /* HTTP/3 stream */
	__u64 is_over;		  /* HTTP/3: nothing more is sent */
	__u64 sample;		  /* enum sample, of the request in flight */
	struct attempt_times attempts[ATTEMPTS_MAX];
	__u64 subrequests[SUBREQUESTS_MAX]; /* ngx_http_request_t of those with an upstream */
	__u32 subrequests_seen;
	__u32 flags; /* enum request_flag: REQUEST_ADOPTED */
	__u64 sk;    /* its socket, once that was seen */
	__u8 is_stream;
	__u8 is_body_unsure; /* stream: a read may have completed its body unnoticed */
	__u16 held;	     /* HTTP/3 connection: its entries of held_requests */
	__u8 is_followed;    /* HTTP/2 stream: reads check its body */
	__u8 stage;	     /* HTTP/3 stream: enum stage */
	__u8 is_wait_mixed;  /* another's module may have made it wait, too */
	__u8 is_early;	     /* HTTP/2 stream: its body was not looked at */
	struct address local;
	struct address peer;
	struct remote remote;
	__u64 number;	      /* with --connections: c->number */
	__u64 requests;	      /* with --connections: c->requests, when it was last read */
	__u64 idle_ns;	      /* with --connections: its last request ended */
	__u64 input_ended_ns; /* with --connections: a read found its end, or failed */
	struct tcp_numbers upstream_tcp; /* of the attempt that was seen last, with --tcp */
};

struct connection_key {
	__u32 pid;
	__u32 pad;
	__u64 connection; /* ngx_connection_t; of subrequests: ngx_http_request_t */
};

/* The attempts of a subrequest. */
struct subrequest_times {
	struct attempt_times attempts[SUBREQUEST_ATTEMPTS_MAX];
};

/* A read that made streams. */
struct input {
	__u64 streams; /* that the connection had had after it */
	__u64 at_ns;
	__u64 wait_ns; /* how long its bytes lay in the socket */
};

/* The bytes that were sent in one round. */
struct output {
	__u64 round; /* from 1 */
	__u64 first_ns;
	__u64 last_ns;
};

/* What the streams of an HTTP/2 connection share. */
struct multiplex {
	__u64 streams; /* that reads before the last one made */
	__u64 round;   /* in which nginx sends now; 0: none yet */
	__u32 is_blocked;
	__u32 inputs_seen;
	struct input inputs[INPUTS_MAX];
	struct watch bodies[BODIES_MAX]; /* streams whose body is incomplete */
	struct output outputs[OUTPUTS_MAX];
};

#endif
