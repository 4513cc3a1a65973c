"""Parquet files of documents: the columns are read as the fields of a JSON line would be."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from diglot.corpus.read.jsonl import record_of, renamed
from diglot.corpus.read.record import Limits, Reached, Record, Refused, SourceFile
from diglot.corpus.read.remote import open_input

BATCH = 512


def read_parquet(file: SourceFile, limits: Limits) -> Iterator[Record | Refused | Reached]:
    """One record a row. Offsets are row numbers; the length is 1. A span takes the row groups that start in it."""
    row = 0
    with open_input(file.path) as stream:
        try:
            table = pq.ParquetFile(stream)
            asked = {theirs.split(".")[0] for _, theirs in file.fields}
            columns = [field.name for field in table.schema_arrow if _is_simple(field.type) or field.name in asked]
            for group in range(table.num_row_groups):
                facts = table.metadata.row_group(group)
                if file.span and not file.span[0] <= _place(facts) < file.span[1]:
                    row += facts.num_rows
                    continue
                for batch in table.iter_batches(batch_size=BATCH, columns=columns, row_groups=[group]):
                    for fields in _with_times_as_text(batch).to_pylist():
                        record = record_of(renamed(fields, file.fields), row, 1)
                        if isinstance(record, Record) and _num_bytes(record.content) > limits.max_document_bytes:
                            record = Refused(reason="too_large", offset=row, url=record.url)
                        yield record
                        row += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            yield Refused(reason="corrupt", offset=row, detail=str(error)[:200])


def _with_times_as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Dates and times as Arrow spells them: Python's cannot hold every value, and one that it cannot stops a batch."""
    columns = [column.cast(pa.string()) if pa.types.is_temporal(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _num_bytes(content: bytes | str) -> int:
    return len(content.encode("utf-8", "surrogatepass")) if isinstance(content, str) else len(content)


def _place(row_group: pq.RowGroupMetaData) -> int:
    """Where a row group starts in its file; 0 for one without columns."""
    if row_group.num_columns == 0:
        return 0
    column = row_group.column(0)
    return int(column.dictionary_page_offset or column.data_page_offset)


def _is_simple(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_primitive(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))
    )
