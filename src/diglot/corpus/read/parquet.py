"""Parquet files of documents: the columns are read as the fields of a JSON line would be."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from diglot.core.storage import open_read
from diglot.corpus.read.jsonl import record_of
from diglot.corpus.read.record import Limits, Record, Refused, SourceFile

BATCH = 512


def read_parquet(file: SourceFile, limits: Limits) -> Iterator[Record | Refused]:
    """One record a row. Offsets are row numbers; the length is 1."""
    row = 0
    with open_read(file.path) as stream:
        try:
            table = pq.ParquetFile(stream)
            simple = [field.name for field in table.schema_arrow if _is_simple(field.type)]
            for batch in table.iter_batches(batch_size=BATCH, columns=simple):
                for fields in batch.to_pylist():
                    record = record_of(fields, row, 1)
                    if isinstance(record, Record) and len(record.content) > limits.max_document_bytes:
                        record = Refused(reason="too_large", offset=row, url=record.url)
                    yield record
                    row += 1
        except (pa.ArrowException, OSError) as error:
            yield Refused(reason="corrupt", offset=row, detail=str(error)[:200])


def _is_simple(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))
