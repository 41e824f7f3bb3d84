# SPDX-License-Identifier: MIT OR Apache-2.0
# A gRPC server that prints its port. It uses TLS when it is given a certificate and its key. /test/Wait answers after
# 200 ms, and pings its client meanwhile; /test/Fail answers with an error, /test/Stream with three messages, 20 ms
# apart.
import sys
import time
from concurrent import futures

import grpc


def wait(request, context):
    time.sleep(0.2)
    return request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing")


def stream(request, context):
    for _ in range(3):
        time.sleep(0.02)
        yield request


METHODS = {
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Stream": grpc.unary_stream_rpc_method_handler(stream),
}

OPTIONS = [
    ("grpc.keepalive_time_ms", 50),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1),
]

server = grpc.server(futures.ThreadPoolExecutor(4), options=OPTIONS)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", METHODS)])
if len(sys.argv) > 1:
    certificate, key = (open(name, "rb").read() for name in sys.argv[1:])
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
