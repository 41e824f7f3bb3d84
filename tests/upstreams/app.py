# SPDX-License-Identifier: MIT OR Apache-2.0
# An application for uwsgi that answers after 60 ms.
import time


def application(environ, start_response):
    environ["wsgi.input"].read()
    time.sleep(0.06)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello\n"]
