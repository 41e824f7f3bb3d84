# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs statements by ClickHouse's engine (chdb), in a database that ends with it.

python clickhouse.py FOLDER [RECORDS...] <STATEMENTS; creates the tables of FOLDER/schema.sql, inserts the files of
records, and prints the results of the statements. They come as an array in JSON, and so do their results, each as a
table in Markdown."""

import json
import sys
import tempfile

from chdb import session

TABLES = "records", "minutes", "attempts"

folder, *files = sys.argv[1:]
statements = json.load(sys.stdin)
with tempfile.TemporaryDirectory() as database:
    engine = session.Session(database)
    with open(f"{folder}/schema.sql") as schema:
        engine.query(schema.read())
    for table in TABLES:
        # Recorded lines are old, and would be deleted.
        engine.query(f"ALTER TABLE ngx_bpf.{table} REMOVE TTL")
    for file in files:
        engine.query(f"INSERT INTO ngx_bpf.records FROM INFILE '{file}' FORMAT JSONEachRow")
    results = [str(engine.query(statement, "Markdown")) for statement in statements]
    engine.close()
json.dump(results, sys.stdout)
