# SPDX-License-Identifier: MIT OR Apache-2.0
"""Checks the configurations of packaging/pipelines whose programs are not available. Vector's programs are compiled
with Vector's own compiler and run on recorded lines; the other configurations are parsed by their grammar.

python pipelines.py FOLDER RECORDS; prints how many events came out."""

import glob
import json
import os
import sys

import logstash_pipeline_parser
import pyvrl
import yaml

folder, records = sys.argv[1:]


def check_vector(config):
    """Checks that what a configuration of Vector refers to is there, and that everything is used."""
    names = set(config["sources"]) | set(config["transforms"])
    used = [name for kind in ("transforms", "sinks") for part in config[kind].values() for name in part["inputs"]]
    assert set(used) == names, (used, names)
    for part in config["transforms"].values():
        if part["type"] == "remap":
            program = os.path.basename(part["file"])
            assert glob.glob(f"{folder}/*/{program}"), program
    for part in config["sources"].values():
        if part["type"] == "kafka":
            # Otherwise Vector overwrites keys of the record, as `headers`.
            keys = [part[f"{key}_key"] for key in ("headers", "offset", "partition", "topic")] + [part["key_field"]]
            assert all(key.startswith("kafka.") for key in keys), keys


def check_collector(config):
    """Checks the same of a configuration of the OpenTelemetry Collector."""
    used = {("extensions", name) for name in config["service"].get("extensions", [])}
    for pipeline in config["service"]["pipelines"].values():
        used |= {(kind, name) for kind, names in pipeline.items() for name in names}
    kinds = "extensions", "receivers", "processors", "exporters"
    there = {(kind, name) for kind in kinds for name in config.get(kind, {})}
    assert used == there, (used, there)


followed = []
configurations = sorted(glob.glob(f"{folder}/*/*.yaml"))
assert len(configurations) == 10, configurations
for name in configurations:
    with open(name) as file:
        config = yaml.safe_load(file)
    (check_collector if "service" in config else check_vector)(config)
    if "filelog" in config.get("receivers", {}):
        followed.append(config["receivers"]["filelog"]["operators"])
# The lines of a file are the same, wherever they are sent.
assert len(followed) == 2 and followed[0] == followed[1], followed
with open(f"{folder}/logstash/ngx-bpf.conf") as file:
    sections = logstash_pipeline_parser.Pipeline(file.read()).parse()
assert [name for name, _ in sections] == ["input", "filter", "output"], sections


def program(name, more=""):
    with open(f"{folder}/{name}") as file:
        return pyvrl.Transform(f"{file.read()}\n{more}\n.")


NANOSECONDS = """if exists(.timestamp) {
  .ns = to_unix_timestamp!(.timestamp, unit: "nanoseconds")
  del(.timestamp)
}"""

record = program("vector/record.vrl", NANOSECONDS)
measures = program("vector/measures.vrl")
row = program("vector/row.vrl")
keep = program("vector/keep.vrl")
line_of = program("loki/loki.vrl", NANOSECONDS)

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
        # What Vector adds about its own source, and of Kafka.
        added = {"command": ["ngx-bpf"], "host": "web1", "source_type": "exec", "stream": "stdout", "timestamp": 0}
        assert row.remap(written | added | {"kafka": {"offset": 1}}) == written | {"host": "web1"}, written
        stream = line_of.remap(written | added)
        assert f"{stream['ns'] % 10**9:09}Z" == written["time"].split(".")[1], written
        assert json.loads(stream["message"]) == written, (stream, written)
        labels = {"job": "ngx-bpf", "host": "web1", "type": "request"}
        if "status" in written:
            labels["status_class"] = f"{written['status'] // 100}xx"
        assert stream["labels"] == labels, (stream, written)
        for key, value in stream["metadata"].items():
            assert value == str(written[key]), (key, value, written)
        count += 1


def is_kept(event):
    """Returns whether the program that leaves out ordinary requests keeps this record, which it may not change."""
    try:
        assert keep.remap(dict(event)) == event, event
    except ValueError:
        return False
    return True


ordinary = {"type": "request", "connection": 101, "status": 404, "elapsed_ns": 499_999_999, "end": "rejected"}
assert not is_kept(ordinary)
for key, value in ("elapsed_ns", 500_000_000), ("status", 502), ("last_phase", "client_body"), ("connection", 200):
    assert is_kept(ordinary | {key: value}), key
assert all(is_kept({"type": type}) for type in ("blocked", "connection", "lost"))

lost = {"type": "lost", "time": "2026-11-27T06:48:24.120000001Z", "count": 3, "cause": "ring_full"}
seen = lost | {"command": ["ngx-bpf"], "host": "web1", "pid": 1, "source_type": "exec", "stream": "stdout"}
assert row.remap(dict(seen)) == lost | {"host": "web1"}
assert json.loads(line_of.remap(dict(seen))["message"]) == lost
# A tunnel of half an hour, which Loki would refuse by its begin.
long = {"type": "request", "time": "2026-11-27T06:00:00.000000001Z", "elapsed_ns": 1_800_000_000_001, "tunnel": True}
assert line_of.remap(long | {"host": "web1"})["ns"] == 1_795_761_000_000_000_002

try:
    measures.remap({"type": "lost", "count": 1})
    sys.exit("a loss was measured as a request")
except ValueError:
    pass
print(count)
