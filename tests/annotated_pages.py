"""Small real texts in several languages as an ingested corpus, and a worker that a text can kill."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa

from diglot.corpus.tables import DOCUMENT, write_table
from diglot.ledger.artifact import Artifact
from diglot.steps import annotate
from handmade_corpus import finish

TEXTS = {
    "handbook": [
        "The package manager reads the list of packages, works out which others are needed, and asks whether to go on.",
        "",
        "Der Paketverwalter liest die Liste der Pakete und fragt, ob er fortfahren soll. Danach ist alles bereit.",
        "软件包管理器会读取软件源提供的列表，判断还需要哪些其他的包，并询问是否继续。安装完成后请重新启动计算机。",
        "12345 67890",
    ],
    "guide": [
        "套件管理程式會讀取套件清單，判斷還需要哪些其他的套件，並詢問是否繼續。完成後請重新啟動電腦。",
        "Before you install the system, make a copy of your files on another disk. Nothing is lost then.",
    ],
}
DEADLY = "this text kills whoever measures it"


def ingested(store: Path, texts: dict[str, list[str]] | None = None, rows_per_shard: int = 3) -> Artifact:
    """The artifact of an ingest step over these texts by source."""
    folder = store / "ingest" / "ingest-0"
    for source, rows in (texts or TEXTS).items():
        for start in range(0, len(rows), rows_per_shard):
            records = [
                {"id": f"{source}-{start + n}", "text": text, "source": source}
                for n, text in enumerate(rows[start : start + rows_per_shard])
            ]
            table = pa.Table.from_pylist(records, schema=DOCUMENT)
            write_table(folder / "documents" / source / f"{start:05d}.parquet", table)
    return finish(folder, {}, {}, {})


def measure_or_die(*arguments, measure=annotate._measure):
    """`annotate._measure`, for a corpus in which one text brings the process down, as a fault in native code would."""
    texts, set_aside = arguments[1]["text"], arguments[2]
    if any(text == DEADLY and row not in set_aside for row, text in enumerate(texts.to_pylist())):
        os._exit(11)
    return measure(*arguments)


def annotate_shard(task):
    annotate._measure = measure_or_die
    return _ANNOTATE_SHARD(task)


def probe(task, start, stop):
    annotate._measure = measure_or_die
    return _PROBE(task, start, stop)


_ANNOTATE_SHARD, _PROBE = annotate.annotate_shard, annotate.probe
