# Prints where the time of each request went, in milliseconds: the queue after another request of its
# connection, the client's header, its body, nginx before it connects, the connect, the wait for the upstream,
# the upstream's response, the response to the client. Tunnels (WebSocket, CONNECT) are left out.
#   jq -r -f time-split.jq /var/log/ngx-bpf/requests.json
def ms($from; $to): if $from and $to then ($to - $from) / 1e6 else "-" end;
select(.type == "request" and .phases and (.tunnel | not))
| (.queue_ns // 0) as $queue
| .phases as $p
| $p.downstream_request_last_byte_time as $header
| $p.downstream_request_body_last_byte_time as $body
| (if $body and $p.upstream_connect_time and $body <= $p.upstream_connect_time then $body else $header end) as $whole
| [
    .time,
    .status,
    $queue / 1e6,
    (if $header then ($header - $p.downstream_request_first_byte_time - $queue) / 1e6 else "-" end),
    ms($header; $body),
    ms($whole; $p.upstream_connect_time),
    ms($p.upstream_connect_time; $p.upstream_request_first_byte_time),
    ms($p.upstream_request_last_byte_time; $p.upstream_response_first_byte_time),
    ms($p.upstream_response_first_byte_time; $p.upstream_response_last_byte_time),
    ms($p.downstream_response_first_byte_time; $p.downstream_response_last_byte_time),
    .uri
  ]
| @tsv
