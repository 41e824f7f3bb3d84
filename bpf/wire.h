/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The records that are sent to user space, and the numbers that both sides share. This is their
 * only definition: src/bpf.rs has the same types from the skeleton.
 *
 * Members *_ns are CLOCK_MONOTONIC nanoseconds; 0: that moment was not seen.
 */
#ifndef NGX_BPF_WIRE_H
#define NGX_BPF_WIRE_H

/* Limits that both sides use. What is beyond the first ones is cut, and reported as cut. */
enum limit {
	ATTEMPTS_MAX = 8,	     /* upstream attempts: the first seven and the last */
	SUBREQUESTS_MAX = 8,	     /* subrequests with an upstream: the first ones */
	SUBREQUEST_ATTEMPTS_MAX = 4, /* the first three and the last */
	SUBREQUEST_URI_MAX = 512,    /* bytes */
	METHOD_MAX = 64,	     /* bytes, as all texts below */
	URI_MAX = 4096,
	HOST_MAX = 512,
	PROTOCOL_MAX = 16,
	ADDR_MAX = 128,
	TRACEPARENT_MAX = 64,
	PLACE_MAX = 512, /* of each name in the configuration */
	ASKED_MAX = 8,	 /* variables that options name; and headers */
	ASKED_NAME_MAX = 64,
	ASKED_VALUE_MAX = 512,
	RING_BYTES = 4 << 20,
	STATUS_WORDS = 16,	 /* of a set of statuses, 64 in each */
	STRUCT_BYTES_MAX = 4096, /* members of a struct of nginx are read up to here */
	/*
	 * And of the structs that are copied whole. The largest known are read up to 1400, 240,
	 * 1200 and 112; an ngx_http_request_body_t is copied to where a state is.
	 */
	REQUEST_BYTES_MAX = 2048,
	CONNECTION_BYTES_MAX = 512,
	UPSTREAM_BYTES_MAX = 2048,
	STATE_BYTES_MAX = 256,
	LAYOUTS_MAX = 64, /* layouts that are traced at the same time */
	HELD_MAX = 1024,  /* responses over HTTP/3 that are waited for */
	PLACE_SLOTS = 64, /* a power of two: places of a worker that were announced last */
	KERNEL_FRAMES_MAX = 32,
	REGISTERS_MAX = 34,	/* words of a struct pt_regs, or of a struct user_pt_regs */
	STACK_BYTES_MAX = 1920, /* of a worker's own stack, from its innermost frame */
	/* Requests that may end at the same moment, besides one on each CPU. */
	SCRATCH_SPARES = 16,
	/* Entries of the maps where the kernel allocates all of them beforehand (before 6.1). */
	PREALLOCATED_CONNECTIONS = 1 << 15,
	PREALLOCATED_MULTIPLEXES = 1 << 12,
	PREALLOCATED_SUBREQUESTS = 1 << 12,
};

/* The kind of a record is its first member, its size the second. */
enum record_kind {
	RECORD_REQUEST = 1,
	RECORD_LOCATION = 2,	 /* struct place_record: a location and its server */
	RECORD_UPSTREAM = 3,	 /* struct place_record: a group of upstream servers */
	RECORD_WORKER_ENDED = 4, /* struct ended_record */
	RECORD_BLOCKED = 5,	 /* struct blocked_record */
	RECORD_CONNECTION = 6,	 /* struct connection_record */
};

/* Why a request was lost. src/pipeline/ledger.rs names each, and does not compile without it. */
enum lost_cause {
	LOST_RING_FULL = 0,
	LOST_INFLIGHT_FULL = 1, /* no room for the entry of its connection, or no scratch */
	LOST_BAD_READ = 2,	/* one of its members could not be read, or is impossible */
	LOST_CAUSES = 3,
};

enum request_flag {
	REQUEST_ADOPTED = 1,  /* the connection was accepted before tracing began */
	REQUEST_UNTRACED = 2, /* nothing was seen of its connection before its end */
	REQUEST_TLS = 4,      /* the client's connection is encrypted */
	REQUEST_UPSTREAM = 8, /* it has r->upstream */
	REQUEST_HEADER_COMPLETE =
		16, /* the part of its header that nginx has parsed ends with an empty line */
	REQUEST_INFERRED = 32,	  /* it was read with an inferred layout */
	REQUEST_BODY = 64,	  /* it has a body, which nginx has read or begun to read */
	REQUEST_UNSERVED = 128,	  /* nginx has noted that its client's connection failed */
	REQUEST_UNRESOLVED = 256, /* no name server has resolved the upstream's name in time */
	REQUEST_OF_PEER = 512,	  /* remote_port and the text remote_addr are those of peer */
	/* How it ended: bpf/ending.bpf.h. Without the first two, that is not known. */
	REQUEST_FINISHED = 1 << 16,	/* nginx has sent the whole response */
	REQUEST_CUT = 1 << 17,		/* it ended the request before that */
	REQUEST_FAILED = 1 << 18,	/* c->error of its client's connection */
	REQUEST_TIMED_OUT = 1 << 19,	/* c->timedout */
	REQUEST_CLOSED = 1 << 20,	/* c->close: nginx shuts down, or closes its QUIC */
	REQUEST_EOF = 1 << 21,		/* nginx has read the end of what the client sends */
	REQUEST_BROKEN = 1 << 22,	/* a read or a send failed */
	REQUEST_READ_TIMEOUT = 1 << 23, /* the timer of reads has expired */
	REQUEST_SEND_TIMEOUT = 1 << 24, /* the timer of sends has expired */
	REQUEST_DROPPED = 1 << 25, /* HTTP/2: it ended with its connection, of which the bits are */
	REQUEST_SOCKET_ERROR = 1 << 26, /* the kernel reported an error on the client's socket */
	REQUEST_UNSENT = 1 << 27,	/* HTTP/3: the end of its response was never sent */
	REQUEST_UNPROCESSED = 1 << 28,	/* nginx ended it before it had the whole header */
	REQUEST_WAIT_MIXED = 1 << 29,	/* another's module may have made it wait, too */
	REQUEST_LIMITED = 1 << 30,    /* limit_req or limit_conn handled it last: it was refused */
	REQUEST_ABANDONED = 1U << 31, /* its worker ended before it did */
};

/* What nginx itself makes a request wait for. nginx-binary has the same: sites/waits.rs. */
enum wait_kind {
	WAIT_LIMIT_REQ = 0,
	WAIT_AUTH = 1,
	WAIT_CACHE_LOCK = 2,
	WAIT_RESOLVE = 3,
	WAIT_KINDS = 4, /* a power of two */
};

/* A wait of which it is not known how long it was. */
#define WAIT_UNKNOWN (~0ULL)

enum attempt_flag {
	ATTEMPT_SEEN = 1,     /* its socket was seen: it has times */
	ATTEMPT_REUSED = 2,   /* its connection was kept from an earlier request */
	ATTEMPT_TLS = 4,      /* its connection is encrypted */
	ATTEMPT_HEADER = 8,   /* nginx has parsed the response's header */
	ATTEMPT_EOF = 16,     /* the upstream closed the connection */
	ATTEMPT_ERROR = 32,   /* a read or a send failed: the connection was reset */
	ATTEMPT_MORE = 64,    /* more was sent after the response had begun */
	ATTEMPT_NEW = 128,    /* its connection is new */
	ATTEMPT_UNSURE = 256, /* some of its bytes may belong to a TLS handshake */
	ATTEMPT_HTTP2 = 512,  /* its connection is HTTP/2 */
	/* From nginx's memory, when the socket was closed or when the request ended. */
	ATTEMPT_LOOKED = 1 << 10,      /* all that nginx knew of its end was read */
	ATTEMPT_TIMED_OUT = 1 << 11,   /* nginx timed out while it waited for bytes */
	ATTEMPT_STUCK = 1 << 12,       /* nginx timed out while it was sending */
	ATTEMPT_WHOLE = 1 << 13,       /* all of the request was sent */
	ATTEMPT_PART = 1 << 14,	       /* a part of the request was sent */
	ATTEMPT_TUNNEL = 1 << 15,      /* the connection is no longer HTTP */
	ATTEMPT_INCOMPLETE = 1 << 16,  /* nginx expected more of the response */
	ATTEMPT_OPEN_ENDED = 1 << 17,  /* the response ends with its connection */
	ATTEMPT_GIVEN_UP = 1 << 18,    /* nginx has noted that reading the response failed */
	ATTEMPT_UNSERVED = 1 << 19,    /* nginx could not pass the response on */
	ATTEMPT_CANCELLED = 1 << 20,   /* the last frame was RST_STREAM or GOAWAY */
	ATTEMPT_HEADER_SENT = 1 << 21, /* of a response that is no tunnel; used in bpf/ only */
};

/* A text of a request. Two texts may share bytes. */
struct text {
	__u16 at;  /* where it begins in the bytes of the texts */
	__u16 len; /* its bytes, and TEXT_CUT when it is longer than these; 0: none */
};

enum text_flag {
	TEXT_CUT = 1 << 15,
};

/* Room for them is in struct texts_room of config.bpf.h. */
struct request_texts {
	struct text method;
	struct text request_uri;
	struct text uri;
	struct text host;
	struct text protocol;
	struct text remote_addr;
	struct text local_path;		  /* of a unix listener */
	struct text server_name;	  /* of the TLS handshake */
	struct text traceparent;	  /* the value of the header of that name */
	struct text resolved;		  /* the host of an upstream that no group has */
	struct text variables[ASKED_MAX]; /* those of --variable that have a value, by its order */
	struct text headers[ASKED_MAX];	  /* those of --header */
};

/* One end of a socket, from the kernel. */
struct address {
	__u16 family;	/* AF_INET, AF_INET6; 0: not seen, or another family */
	__u16 port;	/* host byte order */
	__u8 bytes[16]; /* network byte order; the first four for AF_INET */
};

/* A TCP connection, as the kernel counts over its whole life. */
struct tcp_numbers {
	__u64 rwnd_limited_ns; /* how long the peer's window kept it from sending */
	__u32 srtt_us;	       /* eight times the smoothed round trip; 0: none was measured */
	__u32 retransmits;     /* segments that were sent again */
	__u32 cwnd;	       /* the congestion window, in packets; 0: nothing was read */
	__u32 index;	       /* an upstream's: of the attempt, in r->upstream_states */
};

/* An attempt at an upstream: times from its socket, and what r->upstream_states has of it. */
struct attempt {
	__u64 connect_ns;
	__u64 request_first_ns;
	__u64 request_last_ns;
	__u64 response_first_ns;
	__u64 response_last_ns;
	__u64 handshake_first_ns; /* the first bytes of the TLS handshake were sent */
	__u64 handshake_last_ns;  /* the last bytes of it were sent or read */
	__u64 header_ns;      /* the last read before which the response's header was incomplete */
	__u64 kept_ns;	      /* the last bytes of its kept connection before it */
	__u64 requests;	      /* of its connection, this one included; 0: not known */
	__u64 stall_ns;	      /* how long its socket took nothing of the request */
	__u64 read_wait_ns;   /* how long the response's first bytes lay in the socket */
	__s64 bytes_sent;     /* u->state->bytes_sent; -1: this nginx does not count them */
	__s64 bytes_received; /* u->state->bytes_received; -1: this nginx does not count them */
	__u32 status;	      /* u->state->status; 0: none */
	__u32 flags;	      /* enum attempt_flag */
	__u32 index;	      /* in r->upstream_states */
	__u16 addr_len;	      /* bytes of u->state->peer, which follow; 0: none */
	__u16 addr_cut;	      /* 1: the address is longer */
};

/*
 * A subrequest that had an upstream. It is followed by attempts_len times struct attempt with its
 * address, and by the bytes of its uri.
 */
struct subrequest {
	__u32 status;	      /* as $status; 0: none */
	__u32 upstreams_seen; /* its r->upstream_states->nelts */
	__u16 attempts_len;
	__u16 uri_len;
	__u16 uri_cut; /* 1: the uri is longer */
	__u16 pad;
};

/*
 * A request that has ended. It is followed by its tail: attempts_len times struct attempt with its
 * address, the bytes of the texts, and subrequests_len times struct subrequest with what follows
 * it.
 */
struct request_record {
	__u32 kind;		 /* RECORD_REQUEST */
	__u32 size;		 /* bytes of the whole record, the tail included */
	__u64 ended_ns;		 /* ngx_http_free_request was entered */
	__u64 established_ns;	 /* the kernel had the connection */
	__u64 accepted_ns;	 /* ngx_http_init_connection was entered */
	__u64 previous_ended_ns; /* the request before it on this connection ended */
	__u64 request_first_ns;	 /* the read that brought the request's first byte */
	__u64 header_ns; /* the last read that brought bytes of its header; 0: the first one */
	__u64 body_ns;	 /* the read that completed its body */
	__u64 response_first_ns;   /* the first bytes of the response were sent to the client */
	__u64 response_last_ns;	   /* the last bytes of it were sent */
	__u64 handshake_first_ns;  /* the first bytes of the connection's TLS handshake were read */
	__u64 handshake_last_ns;   /* the last bytes of it were read or sent */
	__u64 read_wait_ns;	   /* how long bytes of the header lay in the socket */
	__u64 client_stall_ns;	   /* how long the socket took nothing of the response */
	__u64 waits[WAIT_KINDS];   /* how long it waited, by enum wait_kind; 0: it did not */
	__u64 request_spilt;	   /* bytes of the body in a temporary file; 0: none */
	__u64 response_spilt;	   /* the same of the response */
	__s64 request_length;	   /* r->request_length */
	__s64 bytes_sent;	   /* c->sent */
	__s64 content_length_n;	   /* r->headers_in.content_length_n; -1: none */
	__u64 connection;	   /* c->number */
	__u64 connection_requests; /* c->requests */
	__u64 location;		   /* the address of its place; 0: nothing is known of that */
	__u64 upstream;		   /* the same, of its last upstream */
	struct tcp_numbers client_tcp;
	struct tcp_numbers upstream_tcp; /* of the attempt that was seen last */
	__u32 pid;
	__u32 flags;	      /* enum request_flag */
	__u32 status;	      /* as $status; 0: none */
	__u32 http_version;   /* r->http_version: 9, 1000, 1001, 2000, 3000 */
	__u32 upstreams_seen; /* r->upstream_states->nelts */
	__u16 attempts_len;
	__u16 remote_port; /* of c->sockaddr; 0: none */
	__u16 texts_len;   /* bytes of all texts */
	struct request_texts texts;
	struct address local; /* nginx's end of the client's connection */
	struct address peer;  /* its other end */
	__u16 cache_status;   /* u->cache_status, 1 to 7; 0: none */
	__u16 subrequests_len;
	__u16 subrequests_seen;
	__u32 container; /* user space's number of its master's container; 0: none */
	__u32 redirects; /* internal redirects; 0: none, or it is not known how many */
};

/*
 * A place in the configuration that requests of a worker refer to by its address, which does not
 * change while the worker lives. It comes before the first such request, and again when another
 * place has had its slot meanwhile. It is followed by the bytes of its texts.
 */
struct place_record {
	__u32 kind; /* RECORD_LOCATION, RECORD_UPSTREAM */
	__u32 size; /* bytes of the whole record, the texts included */
	__u32 pid;
	__u32 slot;    /* which it has from now on: less than PLACE_SLOTS */
	__u64 address; /* r->loc_conf, u->upstream */
	struct text name;
	struct text server_name; /* of a location */
	struct text file;	 /* of the server or the group; empty: it was not asked for */
	__u32 line;
};

/* A worker has ended: no record of it follows. */
struct ended_record {
	__u32 kind; /* RECORD_WORKER_ENDED */
	__u32 size;
	__u32 pid;
	__u32 pad;
};

/* What a worker did, or waited for, instead of coming back to its event loop. */
enum block_part {
	PART_NONE = 0,
	PART_CPU = 1,
	PART_IO = 2,	   /* a sleep that nothing can interrupt: mostly for a disk */
	PART_RUNQUEUE = 3, /* it could run, and waited for a CPU */
	PART_SLEEP = 4,	   /* any other sleep, or it was stopped */
};

/* Where a worker was in one part of its time. */
struct snapshot {
	__u64 part_ns;	  /* how long that lasted */
	__u32 part;	  /* enum block_part */
	__u16 kernel_len; /* frames of the kernel */
	__u16 stack_len;  /* bytes of its own stack; 0: it could not be read */
	__u64 kernel[KERNEL_FRAMES_MAX];
	__u64 registers[REGISTERS_MAX]; /* of the worker, as the kernel keeps them */
	__u8 stack[STACK_BYTES_MAX];	/* from the stack pointer on */
};

/* Requests that have waited for a worker. */
struct waiters {
	__u64 requests;
	__u64 ns;     /* of all of them together */
	__u64 max_ns; /* of the one that waited longest */
};

/* A worker that did not come back to its event loop for long. */
struct blocked_record {
	__u32 kind; /* RECORD_BLOCKED */
	__u32 size;
	__u64 began_ns;
	__u64 ended_ns;
	__u64 io_ns;
	__u64 runqueue_ns;
	__u64 sleep_ns;
	struct waiters waiters;
	__u32 pid;
	__u32 container; /* user space's number of its master's container; 0: none */
	struct snapshot longest;
};

/* What is known of a connection that has ended. */
enum close_state {
	CLOSE_HANDSHAKE = 1,  /* its TLS handshake was not over */
	CLOSE_SECURE = 2,     /* its TLS handshake was over */
	CLOSE_READ = 4,	      /* nginx had read something that is not of the handshake */
	CLOSE_HTTP2 = 8,      /* it is HTTP/2 */
	CLOSE_IDLE = 16,      /* it waited for its next request */
	CLOSE_RESET = 32,     /* the kernel had closed it before nginx did */
	CLOSE_BY_CLIENT = 64, /* the client had closed it before nginx did */
	CLOSE_UNREAD = 128,   /* nginx closed it although there was more to read */
};

/* A client's connection has ended, and the record of its last request does not say so. */
struct connection_record {
	__u32 kind; /* RECORD_CONNECTION */
	__u32 size;
	__u64 closed_ns;	   /* nginx closed it */
	__u64 established_ns;	   /* as of a request */
	__u64 accepted_ns;	   /* as of a request */
	__u64 handshake_first_ns;  /* as of a request */
	__u64 handshake_last_ns;   /* as of a request */
	__u64 idle_ns;		   /* its last request ended */
	__u64 connection;	   /* c->number */
	__u64 connection_requests; /* c->requests; 0: none, or not known */
	__u32 pid;
	__u32 container;
	__u32 state; /* enum close_state */
	__u32 flags; /* enum request_flag: what is of a connection */
	struct address local;
	struct address peer;
};

/* Counters since tracing began. */
struct counters {
	__u64 seen;
	__u64 filtered;
	__u64 lost[LOST_CAUSES];
	__u64 blocked_lost;    /* records of blocked workers for which the ring had no room */
	__u64 ended_processes; /* traced processes that have ended */
	__u64 failed_handshakes;
	__u64 connections;	/* ends of connections, with --connections */
	__u64 lost_connections; /* those that are not sent */
	__u64 waiting_max;	/* the most bytes that were in the ring buffer */
};

#endif
