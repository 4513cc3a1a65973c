"""The peer of `benchmarks.corpus`: datatrove doing one job over the same input, in an environment of its own.

datatrove and Diglot need different fastText packages that overwrite each other, so this file is run by another Python:

    python -m venv peer && peer/bin/pip install 'datatrove[io,processing]==0.10.1' spacy jieba python-magic
    peer/bin/python benchmarks/corpus_datatrove.py quality INPUT_FOLDER WORK_FOLDER --language eng

It prints one JSON object: seconds of CPU and wall clock from the start of the pipeline, after everything is imported
and its word tokenizer is loaded, and what it counted. One task at a time, so CPU seconds are core-seconds; those of
child processes (trafilatura runs in one) are counted when they have ended.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("input", type=Path, help="folder of Parquet files with id and text, or of WARC files")
    parser.add_argument("work", type=Path, help="folder for its results; emptied first")
    parser.add_argument("--language", default="eng", help="ISO 639-3, as datatrove names languages")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    from loguru import logger

    logger.remove()
    stages = JOBS[arguments.job](arguments.input, arguments.work, arguments.language)
    wall, cpu = time.perf_counter(), _cpu_s()
    counts = {}
    for name, stage, tasks in stages:
        counts[name] = _run(stage, arguments.work / "logs" / name, tasks)
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}
    print(json.dumps({"job": arguments.job, **seconds, "counts": counts, "versions": _versions()}))


def quality(folder: Path, work: Path, language: str) -> list[tuple[str, list[Any], int]]:
    """Gopher's quality rules, Parquet to Parquet."""
    from datatrove.pipeline.filters import GopherQualityFilter
    from datatrove.pipeline.writers import ParquetWriter

    _load_words(language)
    keep = GopherQualityFilter(language=language)
    return [("quality", [_reader(folder), keep, ParquetWriter(str(work / "out"))], 1)]


def all_signals(folder: Path, work: Path, language: str) -> list[tuple[str, list[Any], int]]:
    """Gopher's quality and repetition rules and MinHash signatures, each over every document."""
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter

    _load_words(language)
    return [
        ("quality", [_reader(folder), GopherQualityFilter(language=language)], 1),
        ("repetition", [_reader(folder), GopherRepetitionFilter(language=language)], 1),
        ("minhash", [_reader(folder), MinhashDedupSignature(str(work / "sig"), _minhash(), language=language)], 1),
    ]


def dedup(folder: Path, work: Path, language: str) -> list[tuple[str, list[Any], int]]:
    """MinHash deduplication in its four stages; 14 bands of 8 rows over 5-grams."""
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.writers import ParquetWriter

    _load_words(language)
    signatures, buckets, remove = (str(work / name) for name in ("sig", "buckets", "remove"))
    config = _minhash()
    rewrite = [_reader(folder), MinhashDedupFilter(remove), ParquetWriter(str(work / "out"))]
    return [
        ("signatures", [_reader(folder), MinhashDedupSignature(signatures, config, language=language)], 1),
        ("buckets", [MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        ("clusters", [MinhashDedupCluster(buckets, remove, config=config)], 1),
        ("filter", rewrite, 1),
    ]


def warc(folder: Path, work: Path, language: str) -> list[tuple[str, list[Any], int]]:
    """WARC to filtered Parquet: extraction with trafilatura, Gopher's rules, C4's and FineWeb's."""
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import ParquetWriter

    _load_words(language)
    pipeline = [
        WarcReader(str(folder)),
        Trafilatura(favour_precision=True, timeout=10),
        GopherRepetitionFilter(language=language),
        GopherQualityFilter(language=language),
        C4QualityFilter(filter_no_terminal_punct=False, language=language),
        FineWebQualityFilter(language=language),
        ParquetWriter(str(work / "out")),
    ]
    return [("warc", pipeline, 1)]


JOBS = {"quality": quality, "all_signals": all_signals, "dedup": dedup, "warc": warc}


def _reader(folder: Path) -> Any:
    from datatrove.pipeline.readers import ParquetReader

    return ParquetReader(str(folder), text_key="text", id_key="id")


def _minhash() -> Any:
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    return MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)


def _load_words(language: str) -> None:
    from datatrove.utils.text import split_into_words

    split_into_words("one sentence, so that the tokenizer is loaded before the clock starts", language)


def _run(pipeline: list[Any], logs: Path, tasks: int) -> dict[str, Any]:
    from datatrove.executor import LocalPipelineExecutor

    executor = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(logs), skip_completed=False)
    stats = executor.run()
    return {
        one.name: {
            key: metric.total for key, metric in one.stats.items() if key in ("documents", "dropped", "forwarded")
        }
        for one in stats.stats
    }


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"python": sys.version.split()[0], **{name: version(name) for name in ("datatrove", "spacy", "numpy")}}


if __name__ == "__main__":
    main()
