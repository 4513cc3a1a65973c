"""The corpus on disk: three co-partitioned tables, so that a threshold can change without reading a text.

    documents/<source>/<shard>.parquet                what was ingested; never rewritten
    attributes/<family>/<source>/<shard>.parquet      signals: same rows, same order, `id` first
    decisions/<source>/<shard>.parquet                verdicts: same rows, same order, `id` first
    edits/<source>/<shard>.parquet                    spans of the text that are replaced: same rows, same order

Each lives in the artifact of the step that wrote it. A decision table covers every document, also those that an earlier
step dropped, so that the last one tells the whole story; `decisions/rules.json` names the bits of `reasons` and the
numbers of `first_reason`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from diglot.core.errors import InputError
from diglot.core.storage import atomic_path, read_json
from diglot.corpus.edits.spans import apply_to_column
from diglot.ledger.artifact import Artifact

ROW_GROUP = 2048
COMPRESSION = {"compression": "zstd", "compression_level": 3}

DECIDING = ("split", "decontaminate", "edit", "deduplicate", "select")  # kinds of steps that write decisions/
MEASURING = ("classify", "annotate")  # kinds of steps that write attributes/

ORIGIN = pa.struct([("container", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])

DOCUMENT = pa.schema(
    [
        ("id", pa.string()),  # xxh3-128 of the source key (source, url or container path and offset), 32 hex digits
        ("text", pa.large_string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("lang", pa.string()),  # as declared by the page, its address or its collection; BCP 47; null when nothing says
        ("date", pa.string()),
        ("license", pa.string()),
        ("origin", ORIGIN),
        ("meta", pa.string()),  # JSON object: title, charset, headings ...
    ]
)

DECISION = pa.schema(
    [
        ("id", pa.string()),
        ("keep", pa.bool_()),
        ("reasons", pa.uint64()),  # a bit for every rule that objects, numbered as in rules.json
        ("first_reason", pa.int16()),  # number of the first objection in policy order, -1 when kept
        ("value", pa.float32()),  # what the first objecting rule measured; NaN when kept or when it is not a number
        ("lang", pa.string()),  # as identified; the language whose policy judged the document
        ("num_bytes", pa.int64()),  # UTF-8 bytes of the text
        ("duplicate_of", pa.string()),  # id of the kept document, null unless dropped as a duplicate
        ("jaccard", pa.float32()),  # over the units of both texts; 1 for exact duplicates, NaN otherwise
        ("containment", pa.float32()),
        ("cluster", pa.string()),  # smallest id of the loose near-duplicate cluster; null before deduplication
    ]
)


@dataclass(frozen=True, order=True)
class Shard:
    """One file of a corpus: the unit of parallel work and of restart."""

    source: str
    name: str  # without suffix

    @property
    def file(self) -> str:
        return f"{self.source}/{self.name}.parquet"


def shards(documents: Artifact) -> list[Shard]:
    """Every shard of an ingested corpus, in a fixed order. Raises InputError on an empty one."""
    root = documents.path / "documents"
    found = sorted(Shard(str(p.parent.relative_to(root)), p.stem) for p in root.rglob("*.parquet"))
    if not found:
        raise InputError(f"{root} holds no documents. Look at the ingest step's source setting.")
    return found


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file atomically, with this project's row groups and compression."""
    with atomic_path(path) as partial:
        # A dictionary of signatures, which never repeat, takes longer to give up than all the rest takes to write.
        worth_it = [field.name for field in table.schema if not pa.types.is_fixed_size_list(field.type)]
        dictionary = worth_it if len(worth_it) < len(table.schema) else True
        pq.write_table(table, partial, row_group_size=ROW_GROUP, use_dictionary=dictionary, **COMPRESSION)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read one Parquet file. Raises InputError naming the file when it is damaged."""
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}). Delete it and run the recipe again.") from error


def column_names(path: Path) -> list[str]:
    """The columns of one Parquet file. Raises InputError naming the file when it is damaged."""
    try:
        return list(pq.read_schema(path).names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}). Delete it and run the recipe again.") from error


def documents_of(artifact: Artifact, shard: Shard, columns: list[str] | None = None) -> pa.Table:
    """The documents of a shard, their `text` as the edit steps above (or at) `artifact` leave it."""
    table = raw_documents_of(artifact, shard, columns)
    if "text" not in table.column_names:
        return table
    for step in edit_steps(artifact):
        edits = read_table(step.path / "edits" / shard.file, ["spans"])["spans"].combine_chunks()
        if len(edits) != len(table):
            raise InputError(
                f"{step.path}/edits/{shard.file} lists {len(edits)} documents, but the shard has {len(table)}. "
                "Delete that artifact and run the recipe again."
            )
        texts = pa.concat_arrays(table["text"].chunks) if len(table) else table["text"].combine_chunks()
        texts = apply_to_column(texts, edits)
        table = table.set_column(table.column_names.index("text"), DOCUMENT.field("text"), texts)
    return table


def raw_documents_of(artifact: Artifact, shard: Shard, columns: list[str] | None = None) -> pa.Table:
    """The documents of a shard as they were ingested."""
    return read_table(artifact.upstream("ingest").path / "documents" / shard.file, columns)


def decider(artifact: Artifact) -> Artifact | None:
    """The step at or above `artifact` whose verdicts on its own corpus count; None where nothing was decided yet."""
    return next((step for step in artifact.ancestors(aside=False) if step.kind in DECIDING), None)


def edit_steps(artifact: Artifact) -> list[Artifact]:
    """The edit steps above (or at) `artifact`, first applied first: those its verdicts went through, no others."""
    step = decider(artifact)
    found = []
    while step is not None and step.kind in DECIDING:
        if step.kind == "edit":
            found.append(step)
        step = next((one for one in step.inputs() if one.fingerprint == step.manifest.inputs.get("from")), None)
    return found[::-1]


def attributes_of(artifact: Artifact, family: str, shard: Shard, columns: list[str] | None = None) -> pa.Table:
    return read_table(attribute_folder(artifact, family) / shard.file, columns)


def attribute_folder(artifact: Artifact, family: str) -> Path:
    """Where the nearest step above (or at) `artifact` that measured `family` keeps it, a file for each shard.

    Raises InputError when no step did, naming what to add.
    """
    for step in artifact.ancestors():
        folder = step.path / "attributes" / family
        if step.kind in MEASURING and folder.is_dir():
            return folder
    raise InputError(
        f"no step above {artifact.kind} {artifact.fingerprint} measured the family '{family}'. "
        f"Add {family} to the families of the annotate step (or word_lists, url_lists, meta_fields), or a classify "
        "step for a score."
    )


def decisions_of(artifact: Artifact, shard: Shard, columns: list[str] | None = None) -> pa.Table:
    """The verdicts of the nearest step above (or at) `artifact` that decides."""
    return read_table(_decisions(artifact) / shard.file, columns)


def rule_names(artifact: Artifact) -> list[str]:
    """Names of the bits in `reasons`, in policy order, e.g. `language`, `matrix-en/bullet_share`, `near_duplicate`."""
    rules: list[str] = read_json(_decisions(artifact) / "rules.json")
    return rules


def _decisions(artifact: Artifact) -> Path:
    step = decider(artifact)
    return (step or artifact.upstream(*DECIDING)).path / "decisions"  # the second raises with the remedy


def kept_documents(artifact: Artifact, columns: list[str]) -> Iterator[tuple[Shard, pa.Table]]:
    """For each shard the kept rows of the documents table, in order, plus the decision's `lang` as `decided_lang`."""
    for shard in shards(artifact.upstream("ingest")):
        decisions = decisions_of(artifact, shard, ["keep", "lang"])
        table = documents_of(artifact, shard, columns)
        table = table.append_column("decided_lang", decisions["lang"])
        yield shard, table.filter(decisions["keep"])
