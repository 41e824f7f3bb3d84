# SPDX-License-Identifier: MIT OR Apache-2.0
"""Checks the configurations of packaging/pipelines whose programs are not available. Vector's programs are compiled
with Vector's own compiler and run on recorded lines; the other configurations are parsed by their grammar.

python pipelines.py FOLDER RECORDS; prints how many events came out."""

import json
import sys

import logstash_pipeline_parser
import pyvrl
import yaml

folder, records = sys.argv[1:]


for name in (
    "vector/vector.yaml",
    "opentelemetry-collector/config.yaml",
    "opentelemetry-collector/spans.yaml",
    "opentelemetry-collector/otlp.yaml",
):
    with open(f"{folder}/{name}") as file:
        yaml.safe_load(file)
with open(f"{folder}/logstash/ngx-bpf.conf") as file:
    sections = logstash_pipeline_parser.Pipeline(file.read()).parse()
assert [name for name, _ in sections] == ["input", "filter", "output"], sections


def program(name, more=""):
    with open(f"{folder}/vector/{name}") as file:
        return pyvrl.Transform(f"{file.read()}\n{more}\n.")


NANOSECONDS = """if exists(.timestamp) {
  .ns = to_unix_timestamp!(.timestamp, unit: "nanoseconds")
  del(.timestamp)
}"""

record = program("record.vrl", NANOSECONDS)
measures = program("measures.vrl")

count = 0
with open(records) as lines:
    for line in lines:
        written = json.loads(line)
        event = record.remap(written)
        # The event has the request's time to the nanosecond, and every key of the record.
        assert f"{event.pop('ns') % 10**9:09}Z" == written["time"].split(".")[1], written
        assert event == written, (event, written)
        measured = measures.remap(written)
        assert measured["status"] == str(written.get("status", "none")), measured
        assert measured["upstream"] == written.get("upstream_addr", "none"), measured
        if "elapsed_ns" in written and "tunnel" not in written:
            assert abs(measured["seconds"] - written["elapsed_ns"] / 1e9) < 1e-9, measured
        count += 1

try:
    measures.remap({"type": "lost", "count": 1})
    sys.exit("a loss was measured as a request")
except ValueError:
    pass
print(count)
