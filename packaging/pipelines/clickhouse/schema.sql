-- A table for the records of ngx-bpf, of every type, and two tables with a row a minute.
--   clickhouse-client --multiquery <schema.sql
--
-- The columns have the names of the keys. A number or a Boolean that a record does not have is NULL, and a text is
-- empty. Names that the configuration gives, and those of fixed sets, are LowCardinality. What clients choose is
-- not, except methods, protocols and the flags of traces: almost all clients choose from a few of these.
CREATE DATABASE IF NOT EXISTS ngx_bpf;

CREATE TABLE IF NOT EXISTS ngx_bpf.records
(
    -- Set by what sends the record: the name of the machine.
    host LowCardinality(String),
    -- The second of `time`. A record without a time (a request whose first byte was not seen) has the one at which it was
    -- inserted, since rows are sorted and deleted by it.
    at DateTime('UTC') DEFAULT ifNull(toDateTime(time, 'UTC'), now('UTC')) CODEC(DoubleDelta, ZSTD),

    type LowCardinality(String),
    time Nullable(DateTime64(9, 'UTC')) CODEC(Delta, ZSTD),
    pid Nullable(UInt32) CODEC(ZSTD),
    connection Nullable(UInt64) CODEC(ZSTD),
    connection_requests Nullable(UInt64) CODEC(ZSTD),
    remote_addr String CODEC(ZSTD),
    remote_port Nullable(UInt16) CODEC(ZSTD),
    peer_addr String CODEC(ZSTD),
    peer_port Nullable(UInt16) CODEC(ZSTD),
    server_addr LowCardinality(String),
    server_port Nullable(UInt16) CODEC(ZSTD),
    scheme LowCardinality(String),
    server_protocol LowCardinality(String),
    request_method LowCardinality(String),
    request_uri String CODEC(ZSTD),
    uri String CODEC(ZSTD),
    http_host String CODEC(ZSTD),
    location LowCardinality(String),
    redirects Nullable(UInt8) CODEC(ZSTD),
    server_name LowCardinality(String),
    upstream_name LowCardinality(String),
    config Tuple(
        server LowCardinality(String),
        upstream LowCardinality(String)),
    variables Map(LowCardinality(String), String) CODEC(ZSTD),
    headers Map(LowCardinality(String), String) CODEC(ZSTD),
    truncated Array(LowCardinality(String)),
    status Nullable(UInt16) CODEC(ZSTD),
    request_size Nullable(UInt64) CODEC(ZSTD),
    response_size Nullable(UInt64) CODEC(ZSTD),
    upstream_cache_status LowCardinality(String),
    upstream_addr LowCardinality(String),
    downstream_accept_time Nullable(UInt64) CODEC(ZSTD),
    phases Tuple(
        downstream_request_first_byte_time Nullable(UInt64),
        downstream_request_last_byte_time Nullable(UInt64),
        downstream_request_body_last_byte_time Nullable(UInt64),
        upstream_connect_time Nullable(UInt64),
        upstream_request_first_byte_time Nullable(UInt64),
        upstream_request_last_byte_time Nullable(UInt64),
        upstream_response_first_byte_time Nullable(UInt64),
        upstream_response_last_byte_time Nullable(UInt64),
        downstream_response_first_byte_time Nullable(UInt64),
        downstream_response_last_byte_time Nullable(UInt64)) CODEC(T64, ZSTD),
    phases_origin LowCardinality(String),
    duration_ns Nullable(UInt64) CODEC(ZSTD),
    elapsed_ns Nullable(UInt64) CODEC(ZSTD),
    time_ns Tuple(
        client Nullable(UInt64),
        upstream Nullable(UInt64),
        nginx Nullable(UInt64),
        wait Nullable(UInt64)) CODEC(T64, ZSTD),
    accept_queue_ns Nullable(UInt64) CODEC(ZSTD),
    read_wait_ns Nullable(UInt64) CODEC(ZSTD),
    upstream_read_wait_ns Nullable(UInt64) CODEC(ZSTD),
    queue_ns Nullable(UInt64) CODEC(ZSTD),
    body_read_ns Nullable(UInt64) CODEC(ZSTD),
    limit_req_delay_ns Nullable(UInt64) CODEC(ZSTD),
    auth_ns Nullable(UInt64) CODEC(ZSTD),
    resolve_ns Nullable(UInt64) CODEC(ZSTD),
    cache_lock_ns Nullable(UInt64) CODEC(ZSTD),
    wait_ns Nullable(UInt64) CODEC(ZSTD),
    client_stall_ns Nullable(UInt64) CODEC(ZSTD),
    upstream_stall_ns Nullable(UInt64) CODEC(ZSTD),
    request_temp_file_bytes Nullable(UInt64) CODEC(ZSTD),
    response_temp_file_bytes Nullable(UInt64) CODEC(ZSTD),
    tcp Tuple(
        client Tuple(
            rtt_us Nullable(UInt32),
            retransmits Nullable(UInt32),
            cwnd Nullable(UInt32),
            rwnd_limited_ns Nullable(UInt64)),
        upstream Tuple(
            rtt_us Nullable(UInt32),
            retransmits Nullable(UInt32),
            cwnd Nullable(UInt32),
            rwnd_limited_ns Nullable(UInt64))) CODEC(ZSTD),
    `end` LowCardinality(String),
    timeout LowCardinality(String),
    closed_by LowCardinality(String),
    last_phase LowCardinality(String),
    tunnel Nullable(Bool) CODEC(ZSTD),
    tunnel_ns Nullable(UInt64) CODEC(ZSTD),
    tls_handshake_ns Nullable(UInt64) CODEC(ZSTD),
    ssl_server_name String CODEC(ZSTD),
    ssl_protocol LowCardinality(String),
    alpn LowCardinality(String),
    trace_id String CODEC(ZSTD),
    parent_span_id String CODEC(ZSTD),
    trace_flags LowCardinality(String),
    upstreams Array(Tuple(
        addr LowCardinality(String),
        status Nullable(UInt16),
        reused Nullable(Bool),
        connection_requests Nullable(UInt64),
        reused_idle_ns Nullable(UInt64),
        resolve_ns Nullable(UInt64),
        upstream_connect_time Nullable(UInt64),
        upstream_request_first_byte_time Nullable(UInt64),
        upstream_request_last_byte_time Nullable(UInt64),
        upstream_response_first_byte_time Nullable(UInt64),
        upstream_response_last_byte_time Nullable(UInt64),
        response_header_ns Nullable(UInt64),
        upstream_tls_ns Nullable(UInt64),
        bytes_sent Nullable(UInt64),
        bytes_received Nullable(UInt64),
        failure LowCardinality(String),
        post_action Nullable(Bool))) CODEC(ZSTD),
    subrequests Array(Tuple(
        uri String,
        status Nullable(UInt16),
        duration_ns Nullable(UInt64),
        upstreams Array(Tuple(
            addr LowCardinality(String),
            status Nullable(UInt16),
            reused Nullable(Bool),
            connection_requests Nullable(UInt64),
            reused_idle_ns Nullable(UInt64),
            resolve_ns Nullable(UInt64),
            upstream_connect_time Nullable(UInt64),
            upstream_request_first_byte_time Nullable(UInt64),
            upstream_request_last_byte_time Nullable(UInt64),
            upstream_response_first_byte_time Nullable(UInt64),
            upstream_response_last_byte_time Nullable(UInt64),
            response_header_ns Nullable(UInt64),
            upstream_tls_ns Nullable(UInt64),
            bytes_sent Nullable(UInt64),
            bytes_received Nullable(UInt64),
            failure LowCardinality(String),
            post_action Nullable(Bool))))) CODEC(ZSTD),
    container_id LowCardinality(String),
    pod_uid LowCardinality(String),
    pod LowCardinality(String),
    namespace LowCardinality(String),
    layout LowCardinality(String),
    partial Nullable(Bool) CODEC(ZSTD),

    -- Of records of type `connection`.
    stage LowCardinality(String),
    connection_ns Nullable(UInt64) CODEC(ZSTD),
    idle_ns Nullable(UInt64) CODEC(ZSTD),
    connections_lost Nullable(UInt64) CODEC(ZSTD),

    -- Of records of type `blocked`.
    on_cpu_ns Nullable(UInt64) CODEC(ZSTD),
    io_ns Nullable(UInt64) CODEC(ZSTD),
    runqueue_ns Nullable(UInt64) CODEC(ZSTD),
    sleep_ns Nullable(UInt64) CODEC(ZSTD),
    longest_part LowCardinality(String),
    longest_part_ns Nullable(UInt64) CODEC(ZSTD),
    kernel_stack Array(LowCardinality(String)),
    user_stack Array(LowCardinality(String)),
    stacks_cut Nullable(Bool) CODEC(ZSTD),
    waiting_requests Nullable(UInt64) CODEC(ZSTD),
    waiting_ns Nullable(UInt64) CODEC(ZSTD),
    waiting_max_ns Nullable(UInt64) CODEC(ZSTD),

    -- Of records of type `lost`.
    count Nullable(UInt64) CODEC(ZSTD),
    cause LowCardinality(String),

    -- One trace is found without reading the day.
    INDEX trace_id trace_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toDate(at)
ORDER BY (type, server_name, location, at)
TTL at + INTERVAL 14 DAY DELETE
SETTINGS ttl_only_drop_parts = 1;

-- A row for each minute, machine, location and class of status: for questions about weeks, and for dashboards.
CREATE TABLE IF NOT EXISTS ngx_bpf.minutes
(
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD),
    host LowCardinality(String),
    server_name LowCardinality(String),
    location LowCardinality(String),
    -- 2xx and so on. Empty: the request had no status, or the row is one of losses.
    status_class LowCardinality(String),
    requests SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    -- Requests that have no record.
    lost SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    response_bytes SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    -- Of requests that have the key and did not become tunnels. A percentile is within 1 % of the true one.
    elapsed_state AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99, 0.999), UInt64) CODEC(ZSTD),
    elapsed_max_ns SimpleAggregateFunction(max, UInt64) CODEC(ZSTD),
    -- The four parts of `time_ns`.
    client_ns SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    upstream_ns SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    nginx_ns SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    wait_ns SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (server_name, location, status_class, host, minute)
TTL minute + INTERVAL 400 DAY DELETE
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ngx_bpf.minutes_of_records TO ngx_bpf.minutes AS
SELECT
    toStartOfMinute(at) AS minute,
    host,
    server_name,
    location,
    if(status IS NULL, '', concat(toString(intDiv(status, 100)), 'xx')) AS status_class,
    countIf(type = 'request') AS requests,
    sumIf(ifNull(count, 0), type = 'lost') AS lost,
    sum(ifNull(response_size, 0)) AS response_bytes,
    quantilesDDStateIf(0.01, 0.5, 0.9, 0.99, 0.999)(assumeNotNull(elapsed_ns), elapsed_ns IS NOT NULL AND tunnel IS NULL) AS elapsed_state,
    maxIf(assumeNotNull(elapsed_ns), elapsed_ns IS NOT NULL AND tunnel IS NULL) AS elapsed_max_ns,
    sum(ifNull(time_ns.client, 0)) AS client_ns,
    sum(ifNull(time_ns.upstream, 0)) AS upstream_ns,
    sum(ifNull(time_ns.nginx, 0)) AS nginx_ns,
    sum(ifNull(time_ns.wait, 0)) AS wait_ns
FROM ngx_bpf.records
WHERE type IN ('request', 'lost')
GROUP BY minute, host, server_name, location, status_class;

-- A row for each minute, machine and server of an upstream, and for each way in which attempts at it failed.
CREATE TABLE IF NOT EXISTS ngx_bpf.attempts
(
    minute DateTime('UTC') CODEC(DoubleDelta, ZSTD),
    host LowCardinality(String),
    addr LowCardinality(String),
    -- Empty: the attempts did not fail.
    failure LowCardinality(String),
    attempts SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    -- Of these, on new and on kept connections.
    new SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    kept SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD),
    -- Of attempts that have the key: of responses with a header.
    response_header_state AggregateFunction(quantilesDD(0.01, 0.5, 0.9, 0.99, 0.999), UInt64) CODEC(ZSTD)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (addr, failure, host, minute)
TTL minute + INTERVAL 400 DAY DELETE
SETTINGS ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS ngx_bpf.attempts_of_records TO ngx_bpf.attempts AS
SELECT
    toStartOfMinute(at) AS minute,
    host,
    attempt.addr AS addr,
    attempt.failure AS failure,
    count() AS attempts,
    countIf(attempt.reused = false) AS new,
    countIf(attempt.reused = true) AS kept,
    quantilesDDStateIf(0.01, 0.5, 0.9, 0.99, 0.999)(assumeNotNull(attempt.response_header_ns), attempt.response_header_ns IS NOT NULL) AS response_header_state
FROM ngx_bpf.records
ARRAY JOIN upstreams AS attempt
GROUP BY minute, host, addr, failure;
