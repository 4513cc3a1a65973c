"""Ingest functions for workers in which one record brings its reader down, as a fault in native code would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from diglot.corpus import ingestion
from diglot.corpus.executor import Quarantine

DEADLY = "this record kills whoever reads it"
_READ = ingestion.read


def read_or_die(*arguments: Any) -> Iterator[Any]:
    for content in _READ(*arguments):
        if getattr(content, "content", None) == DEADLY:
            os._exit(11)
        yield content


def ingest_shard(task: ingestion.IngestTask) -> dict[str, Any]:
    ingestion.read = read_or_die
    return ingestion.ingest_shard(task)


def num_records(task: ingestion.IngestTask) -> int:
    ingestion.read = read_or_die
    return ingestion.num_records(task)


def probe(task: ingestion.IngestTask, start: int, stop: int) -> None:
    ingestion.read = read_or_die
    ingestion.probe(task, start, stop)


QUARANTINE = Quarantine(num_documents=num_records, probe=probe, without=ingestion.without, cut_off=ingestion.cut_off)
