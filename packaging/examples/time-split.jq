# Where the time of each request went, in milliseconds:
#   jq -r -f time-split.jq /var/log/ngx-bpf/requests.json
def ms($from; $to): if $from and $to then ($to - $from) / 1e6 else "-" end;
select(.type == "request" and .phases)
| .phases as $p
| [
    .time,
    .status,
    ms($p.downstream_request_first_byte_time; $p.downstream_request_last_byte_time),
    ms($p.upstream_connect_time; $p.upstream_request_first_byte_time),
    ms($p.upstream_request_last_byte_time; $p.upstream_response_first_byte_time),
    ms($p.upstream_response_first_byte_time; $p.upstream_response_last_byte_time),
    ms($p.downstream_response_first_byte_time; $p.downstream_response_last_byte_time),
    .uri
  ]
| @tsv
