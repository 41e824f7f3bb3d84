/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The members of nginx's structs that bpf/ reads, under nginx's own names. Their offsets in this file
 * have no meaning: members are relocated at load against the layout of the traced binary, which must
 * have every one of them (README.md describes how to add one).
 */

#ifndef _NGX_BPF_NGINX_H_INCLUDED_
#define _NGX_BPF_NGINX_H_INCLUDED_


typedef unsigned long     ngx_uint_t;
typedef unsigned long     ngx_msec_t;
typedef int               ngx_socket_t;


/* r->signature of every ngx_http_request_t that is alive: "HTTP" */
#define NGX_HTTP_MODULE   0x50545448

/* r->http_version */
#define NGX_HTTP_VERSION_9   9
#define NGX_HTTP_VERSION_10  1000
#define NGX_HTTP_VERSION_20  2000
#define NGX_HTTP_VERSION_30  3000

/* statuses, by nginx's names */
#define NGX_HTTP_SWITCHING_PROTOCOLS  101
#define NGX_HTTP_OK                   200
#define NGX_HTTP_BAD_REQUEST          400

/* u->cache_status: three bits after store, cacheable, accel and ssl; 0: no cache was asked */
#define NGX_HTTP_CACHE_STATUS_BIT   4
#define NGX_HTTP_CACHE_STATUS_MASK  7
#define NGX_HTTP_CACHE_STALE        4
#define NGX_HTTP_CACHE_UPDATING     5
#define NGX_HTTP_CACHE_HIT          7

/*
 * Bits of the word that begins with u->store. After the bits of the cache come buffering, keepalive
 * and upgrade, then error (since 1.19.1), request_sent, request_body_sent, request_body_blocked
 * (since 1.13.10) and header_sent.
 */
#define NGX_HTTP_UPSTREAM_BUFFERING_BIT           7
#define NGX_HTTP_UPSTREAM_BUFFERING_BIT_NO_CACHE  4

/* bits of the word that begins with p->read */
#define NGX_EVENT_PIPE_CACHEABLE         0x002
#define NGX_EVENT_PIPE_UPSTREAM_DONE     0x010
#define NGX_EVENT_PIPE_UPSTREAM_ERROR    0x020
#define NGX_EVENT_PIPE_UPSTREAM_EOF      0x040
#define NGX_EVENT_PIPE_DOWNSTREAM_ERROR  0x200

/* bits of the word that begins with ev->write */
#define NGX_EVENT_ACTIVE    0x0008
#define NGX_EVENT_READY     0x0020
#define NGX_EVENT_EOF       0x0100
#define NGX_EVENT_ERROR     0x0200
#define NGX_EVENT_TIMEDOUT  0x0400
#define NGX_EVENT_TIMER_SET 0x0800
#define NGX_EVENT_DELAYED   0x1000

/*
 * Bits of the word that begins with c->buffered: timedout, error and destroyed. nginx does not set
 * destroyed before the request has ended. Before 1.11.0 unexpected_eof precedes these; nginx clears it
 * when it processes a request.
 */
#define NGX_CONNECTION_FAILED  0x3800

/*
 * The same bits, one by one, since 1.11.0. close is the third or, since 1.23.3, the fourth bit after
 * destroyed; what comes between is 0 while the connection has a request, and so is what follows (shared,
 * which sockets of QUIC set).
 */
#define NGX_CONNECTION_TIMEDOUT  0x00800
#define NGX_CONNECTION_ERROR     0x01000
#define NGX_CONNECTION_CLOSE     0x30000

/*
 * The bit before reusable, which is 0 when the connection is closed; and so is the one before, of nginx
 * since 1.23.3.
 */
#define NGX_CONNECTION_IDLE      0xc000

/* c->buffered: who holds bytes back that are to be sent */
#define NGX_CONNECTION_BUFFERED  0xff

/* frame->type: the frame carries bytes of a stream, or ends it */
#define NGX_QUIC_FT_RESET_STREAM  0x04
#define NGX_QUIC_FT_STREAM        0x08

/* frame->u.stream.fin: the bit after off and len */
#define NGX_QUIC_FIN              0x04

/* stream->id: the server opened the stream, or it has one direction; it carries no request */
#define NGX_QUIC_STREAM_OTHER     0x03

/* qc->send_ctx[]: the last element is for packets after the handshake */
#define NGX_QUIC_SEND_CTX_APPLICATION    2

/*
 * Where ngx_http_core_srv_conf_t has file_name and line, which are followed by server_name, since 1.15.0.
 * Before, it has server_name there. All releases and forks that were examined agree.
 */
#define NGX_HTTP_CORE_SRV_CONF_NAMES  48

/*
 * u->resolved, which points to the text of a host (`host` is its first member), is this many bytes before
 * u->buffer. Where Tengine has dyn_resolve_ctx between them it is there, which begins with pointers.
 */
#define NGX_HTTP_UPSTREAM_RESOLVED  88

/*
 * Where ngx_http_core_main_conf_t has the array `variables`, whose elements begin with their names. r->variables
 * is so many bytes after r->main. All releases and forks that were examined agree.
 */
#define NGX_HTTP_CORE_MAIN_CONF_VARIABLES  96
#define NGX_HTTP_REQUEST_VARIABLES         64

/*
 * The same of phase_engine.handlers, an array of ngx_http_phase_handler_t, and of r->phase_handler, the index of
 * the one that handles the request.
 */
#define NGX_HTTP_CORE_MAIN_CONF_HANDLERS   40
#define NGX_HTTP_REQUEST_PHASE_HANDLER     40

/*
 * r->uri_changes: four bits, which begin with one more than this. crates/nginx-binary/src/layout/uri_changes.rs
 * knows where they are.
 */
#define NGX_HTTP_MAX_URI_CHANGES   10
#define NGX_HTTP_URI_CHANGES_MASK  15

/* v->len and the bits after it: an ngx_http_variable_value_t is this word and a pointer */
#define NGX_HTTP_VARIABLE_LEN        0x0fffffff
#define NGX_HTTP_VARIABLE_VALID      0x10000000
#define NGX_HTTP_VARIABLE_NOT_FOUND  0x40000000

/* nginx's value for a time that is not known yet */
#define NGX_MSEC_UNSET    ((ngx_msec_t) -1)


#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)


struct ngx_str_t {
    unsigned long                    len;
    unsigned char                   *data;
};


struct ngx_array_t {
    void                            *elts;
    ngx_uint_t                       nelts;
    unsigned long                    size;
};


struct ngx_buf_s {
    unsigned char                   *pos;
    long                             file_last;
    unsigned char                   *start;
};


struct ngx_chain_s {
    struct ngx_buf_s                *buf;
};


struct ngx_list_part_s {
    void                            *elts;
    ngx_uint_t                       nelts;
    struct ngx_list_part_s          *next;
};


struct ngx_list_t {
    struct ngx_list_part_s           part;
    ngx_uint_t                       size;
};


struct ngx_table_elt_s {
    ngx_uint_t                       hash;
    struct ngx_str_t                 key;
    struct ngx_str_t                 value;
};


struct ngx_http_log_ctx_s {
    struct ngx_http_request_s       *current_request;
};


struct ngx_log_s {
    struct ngx_http_log_ctx_s       *data;
};


struct ngx_event_s {
    unsigned int                     write;         /* the word that begins with it */
};


struct ngx_connection_s {
    void                            *data;
    struct ngx_event_s              *read;
    struct ngx_event_s              *write;
    ngx_socket_t                     fd;
    void                            *recv;
    void                            *listening;
    long                             sent;
    struct ngx_log_s                *log;
    int                              type;
    void                            *sockaddr;
    struct ngx_str_t                 addr_text;
    struct ngx_quic_stream_s        *quic;
    void                            *ssl;
    struct ngx_quic_socket_s        *udp;
    void                            *local_sockaddr;
    unsigned long                    number;
    ngx_uint_t                       requests;
    unsigned int                     buffered;      /* the word that begins with it */
};


struct ngx_http_connection_t {
    struct ngx_str_t                *ssl_servername;
};


struct ngx_http_core_loc_conf_s {
    struct ngx_str_t                 name;
};


struct ngx_http_headers_in_t {
    struct ngx_list_t                headers;
    struct ngx_table_elt_s          *host;
    long                             content_length_n;
};


struct ngx_http_headers_out_t {
    ngx_uint_t                       status;
};


struct ngx_file_s {
    int                              fd;
};


struct ngx_event_pipe_s {
    struct ngx_connection_s         *upstream;
    struct ngx_connection_s         *downstream;
    unsigned int                     read;          /* the word that begins with it */
    long                             read_length;
    long                             length;
    unsigned long                    preread_size;
    struct ngx_file_s               *temp_file;     /* the first member of the struct it points to */
};


struct ngx_peer_connection_s {
    struct ngx_connection_s         *connection;
};


struct ngx_http_upstream_srv_conf_s {
    struct ngx_str_t                 host;
    unsigned char                   *file_name;
    ngx_uint_t                       line;
};


struct ngx_http_upstream_s {
    struct ngx_peer_connection_s     peer;
    struct ngx_event_pipe_s         *pipe;
    struct ngx_chain_s              *request_bufs;
    struct ngx_http_upstream_srv_conf_s *upstream;
    struct ngx_buf_s                 buffer;
    long                             length;
    unsigned short                   store;         /* the word that begins with it */
    unsigned short                   cache_status;  /* the same word, where nginx has a cache */
};


struct ngx_http_upstream_state_t {
    ngx_uint_t                       status;
    ngx_msec_t                       header_time;
    long                             bytes_received;
    long                             bytes_sent;
    struct ngx_str_t                *peer;
};


struct ngx_http_request_body_t {
    struct ngx_file_s               *temp_file;     /* the first member of the struct it points to */
    struct ngx_chain_s              *bufs;
    struct ngx_buf_s                *buf;
    long                             rest;
};


struct ngx_http_request_s {
    unsigned int                     signature;
    struct ngx_connection_s         *connection;
    void                           **main_conf;
    void                           **srv_conf;
    void                           **loc_conf;
    void                            *read_event_handler;
    void                            *write_event_handler;
    struct ngx_http_upstream_s      *upstream;
    struct ngx_array_t              *upstream_states;
    void                            *pool;
    struct ngx_buf_s                *header_in;
    struct ngx_http_headers_in_t     headers_in;
    struct ngx_http_headers_out_t    headers_out;
    struct ngx_http_request_body_t  *request_body;
    ngx_uint_t                       http_version;
    struct ngx_str_t                 uri;
    struct ngx_str_t                 unparsed_uri;
    struct ngx_str_t                 method_name;
    struct ngx_str_t                 http_protocol;
    struct ngx_http_request_s       *main;
    struct ngx_http_connection_t    *http_connection;
    struct ngx_http_v2_stream_s     *stream;
    long                             request_length;
    ngx_uint_t                       err_status;
};


struct ngx_http_v2_node_s {
    ngx_uint_t                       id;
};


struct ngx_http_v2_stream_s {
    struct ngx_http_request_s       *request;
    struct ngx_http_v2_connection_s *connection;
    struct ngx_http_v2_node_s       *node;
};


struct ngx_http_v2_out_frame_s {
    struct ngx_http_v2_out_frame_s  *next;
    struct ngx_http_v2_stream_s     *stream;
};


struct ngx_http_v2_state_t {
    ngx_uint_t                       sid;
    struct ngx_http_v2_stream_s     *stream;
};


struct ngx_http_v2_connection_s {
    struct ngx_connection_s         *connection;
    struct ngx_http_v2_state_t       state;
    struct ngx_http_v2_out_frame_s  *last_out;
};


struct ngx_queue_s {
    struct ngx_queue_s              *next;
};


struct ngx_quic_stream_s {
    struct ngx_connection_s         *parent;
    unsigned long                    id;
};


struct ngx_quic_socket_s {
    struct ngx_quic_connection_s    *quic;
};


struct ngx_quic_send_ctx_s {
    struct ngx_queue_s               sending;
    ngx_uint_t                       send_ack;      /* the last member: the struct's size depends on it */
};


struct ngx_quic_connection_s {
    struct ngx_quic_send_ctx_s       send_ctx;      /* the first of three */
};


struct ngx_quic_stream_frame_t {
    unsigned long                    offset;        /* RESET_STREAM has the stream's id here */
    unsigned long                    stream_id;
    unsigned char                    fin;           /* the byte with off, len and fin */
};


struct ngx_quic_frame_s {
    ngx_uint_t                       type;
    struct ngx_queue_s               queue;
    struct ngx_quic_stream_frame_t   u;
};


#pragma clang attribute pop


#endif /* _NGX_BPF_NGINX_H_INCLUDED_ */
