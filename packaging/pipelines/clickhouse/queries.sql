-- Questions, each with its answer for the time between the parameters `from` and `to` (docs/clickhouse.md).

-- Where did the time go?
SELECT server_name, location, sum(requests) AS n,
    round(sum(client_ns) / 1e6) AS client_ms, round(sum(upstream_ns) / 1e6) AS upstream_ms,
    round(sum(nginx_ns) / 1e6) AS nginx_ms, round(sum(wait_ns) / 1e6) AS wait_ms
FROM ngx_bpf.minutes
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY server_name, location
ORDER BY client_ms + upstream_ms + nginx_ms + wait_ms DESC, server_name, location
LIMIT 20;

-- Which location is slow, or fails?
SELECT server_name, location, sum(requests) AS n, sumIf(requests, status_class = '5xx') AS failed,
    arrayMap(ns -> round(ns / 1e6, 1), quantilesDDMerge(0.01, 0.5, 0.9, 0.99, 0.999)(elapsed_state)) AS ms,
    round(max(elapsed_max_ns) / 1e6, 1) AS max_ms
FROM ngx_bpf.minutes
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')} AND requests > 0
GROUP BY server_name, location
ORDER BY ms[3] DESC, server_name, location
LIMIT 20;

-- How did it change over the days?
SELECT toDate(minute) AS day, sum(requests) AS n, sumIf(requests, status_class = '5xx') AS failed,
    round(sum(response_bytes) / 1e6, 1) AS megabytes,
    arrayMap(ns -> round(ns / 1e6, 1), quantilesDDMerge(0.01, 0.5, 0.9, 0.99, 0.999)(elapsed_state)) AS ms
FROM ngx_bpf.minutes
WHERE minute >= {from:DateTime('UTC')} - INTERVAL 30 DAY AND minute < {to:DateTime('UTC')}
GROUP BY day
ORDER BY day;

-- Which requests were the slowest, and what did they wait for?
SELECT time, request_method AS method, request_uri, status, round(elapsed_ns / 1e6, 1) AS ms,
    round(time_ns.client / 1e6, 1) AS client, round(time_ns.upstream / 1e6, 1) AS upstream,
    round(time_ns.nginx / 1e6, 1) AS nginx, round(time_ns.wait / 1e6, 1) AS wait, upstreams.addr AS tried
FROM ngx_bpf.records
WHERE type = 'request' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND tunnel IS NULL
ORDER BY elapsed_ns DESC
LIMIT 5;

-- Who gave up, where, and at what age?
SELECT count() AS n, status, `end`, last_phase, upstream_addr,
    round(min(elapsed_ns) / 1e6) AS min_ms, round(median(elapsed_ns) / 1e6) AS median_ms, round(max(elapsed_ns) / 1e6) AS max_ms
FROM ngx_bpf.records
WHERE type = 'request' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND closed_by = 'client' AND tunnel IS NULL
GROUP BY status, `end`, last_phase, upstream_addr
ORDER BY n DESC, status, `end`, last_phase, upstream_addr;

-- Which time limit expired, and of whom?
SELECT count() AS n, status, timeout, last_phase, upstream_addr, round(max(elapsed_ns) / 1e6) AS max_ms
FROM ngx_bpf.records
WHERE type = 'request' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND timeout != ''
GROUP BY status, timeout, last_phase, upstream_addr
ORDER BY n DESC, status, timeout, last_phase, upstream_addr;

-- Which servers fail, and are their connections kept?
SELECT addr, sum(attempts) AS n, sumIf(attempts, failure != '') AS failed,
    sumMapIf(map(failure, attempts), failure != '') AS failures, sum(new) AS on_new, sum(kept) AS on_kept,
    arrayMap(ns -> round(ns / 1e6, 1), quantilesDDMerge(0.01, 0.5, 0.9, 0.99, 0.999)(response_header_state)) AS header_ms
FROM ngx_bpf.attempts
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY addr
ORDER BY failed DESC, addr;

-- Which kept connections were closed by the upstream too early?
SELECT attempt.addr AS addr, count() AS n,
    round(min(attempt.reused_idle_ns) / 1e6) AS min_idle_ms, round(max(attempt.reused_idle_ns) / 1e6) AS max_idle_ms,
    min(attempt.connection_requests) AS min_request, max(attempt.connection_requests) AS max_request
FROM ngx_bpf.records ARRAY JOIN upstreams AS attempt
WHERE type = 'request' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')}
    AND attempt.reused AND attempt.failure IN ('closed', 'reset')
GROUP BY addr
ORDER BY n DESC, addr;

-- Which clients are slow?
SELECT remote_addr, count() AS n, round(sum(client_stall_ns) / 1e6) AS stall_ms,
    round(sum(body_read_ns) / 1e6) AS body_ms, round(sum(elapsed_ns) / 1e6) AS elapsed_ms
FROM ngx_bpf.records
WHERE type = 'request' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')}
    AND (client_stall_ns > 0 OR body_read_ns > 0)
GROUP BY remote_addr
ORDER BY ifNull(stall_ms, 0) + ifNull(body_ms, 0) DESC, remote_addr
LIMIT 10;

-- What does nginx itself make requests wait for?
SELECT server_name, location,
    round(sum(limit_req_delay_ns) / 1e6) AS limit_req_ms, round(sum(auth_ns) / 1e6) AS auth_ms,
    round(sum(resolve_ns) / 1e6) AS resolve_ms, round(sum(cache_lock_ns) / 1e6) AS cache_lock_ms,
    sum(request_temp_file_bytes) AS request_temp_bytes, sum(response_temp_file_bytes) AS response_temp_bytes
FROM ngx_bpf.records
WHERE type = 'request' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')}
GROUP BY server_name, location
HAVING coalesce(limit_req_ms, auth_ms, resolve_ms, cache_lock_ms, request_temp_bytes, response_temp_bytes) IS NOT NULL
ORDER BY server_name, location;

-- Which worker was busy, and with what?
SELECT toStartOfMinute(at) AS minute, host, pid, countIf(type = 'request') AS n,
    round(max(read_wait_ns) / 1e6) AS read_wait_ms, round(max(accept_queue_ns) / 1e6) AS accept_queue_ms,
    countIf(type = 'blocked') AS blocked, round(sumIf(duration_ns, type = 'blocked') / 1e6) AS blocked_ms,
    topKIf(1)(arrayFirst(f -> match(f, '^ngx.*\\((nginx|.*module\\.so)\\)$'), user_stack), type = 'blocked') AS mostly_in
FROM ngx_bpf.records
WHERE type IN ('request', 'connection', 'blocked') AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')}
GROUP BY minute, host, pid
HAVING read_wait_ms > 10 OR accept_queue_ms > 10 OR blocked > 0
ORDER BY minute, host, pid;

-- Whose TLS handshakes fail?
SELECT peer_addr, `end`, count() AS n, round(max(connection_ns) / 1e6) AS max_ms
FROM ngx_bpf.records
WHERE type = 'connection' AND at >= {from:DateTime('UTC')} AND at < {to:DateTime('UTC')} AND stage = 'tls_handshake'
GROUP BY peer_addr, `end`
ORDER BY n DESC, peer_addr, `end`;

-- What belongs to this trace?
SELECT time, host, request_method AS method, request_uri, status, round(elapsed_ns / 1e6, 1) AS ms, parent_span_id
FROM ngx_bpf.records
WHERE type = 'request' AND trace_id = {trace:String}
ORDER BY time;

-- Is anything missing?
SELECT host, sum(requests) AS n, sum(lost) AS missing
FROM ngx_bpf.minutes
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY host
ORDER BY host;
