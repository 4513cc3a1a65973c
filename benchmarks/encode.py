"""How fast is encoding, beside tokenizers, sentencepiece and tiktoken on the same texts?

Run:      python -m benchmarks.encode --data ../shared/data --out encode.json       (four minutes on two busy cores)
Workload: the shared prose. Every second document trains a vocabulary of 16,384 pieces (8 MB of each language), the
          others are encoded (3 MB of each language), one call for each batch of 256 documents, as `pack` does.
Compared: ours to lists and to arrays, on one thread and on all cores; `tokenizers` with our tokenizer.json, as it is
          and with its cache of words turned off; `sentencepiece` with our tokenizer.model; all on one thread.
          tiktoken joins bytes and needs a token for every step on the way to a character, so it cannot run our
          vocabulary: it runs a byte-level one of the same size, trained on the same texts by `tokenizers`, which runs
          that one too. Those two rows produce other tokens; their number per kB stands beside them.
Checked:  ids of every document are equal: ours, tokenizers and sentencepiece; and tiktoken with tokenizers.
Reports:  MB of UTF-8 per core-second (CPU time of the process, all threads), median and range of `--rounds` alternating
          rounds after one warm-up; MB per second of wall time; ratio to tokenizers with our vocabulary.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zstandard

from diglot.core.hardware import host
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.read_hub import byte_alphabet
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary

SOURCES = {
    "en": (
        "en_novels",
        "python_docs",
        "reviews",
        "us_speeches_shakespeare",
        "openstax_political_science",
        "react_docs",
    ),
    "zh": ("cn_novels", "cn_laws", "oi_wiki", "python_docs", "zh_wikipedia_paragraphs", "tidb_docs_cn"),
}
VOCAB_SIZE = 16_384
BATCH = 256
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""  # GPT-2's, digits apart
REFERENCE = "tokenizers"
Encode = Callable[[Sequence[str]], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shared data folder")
    parser.add_argument("--train-mb", type=float, default=8.0, help="of each language")
    parser.add_argument("--encode-mb", type=float, default=3.0, help="of each language")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read by the library when it first encodes
    texts = {lang: documents(arguments.data, lang, arguments) for lang in SOURCES}
    training = [text for train, _ in texts.values() for text in train]
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder), *train_vocabulary(training, TrainingSettings(vocab_size=VOCAB_SIZE)))
        own, byte_level = encoders(Path(folder)), byte_level_encoders(training)
        rows = [row for lang in SOURCES for row in measure(lang, texts[lang][1], own, byte_level, arguments.rounds)]
    result = {"host": host().to_dict(), "versions": versions(), "rounds": arguments.rounds, "rows": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1))
    print(f"\n{host().cpu}, {host().num_cores} cores; {', '.join(f'{n} {v}' for n, v in versions().items())}")
    print("| language | encoder | MB per core-second, median (range) | ratio | MB/s of wall time | tokens per kB |")
    print("|---|---|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['lang']} | {row['encoder']} | {row['per_core_second']:.1f} ({row['low']:.1f}–{row['high']:.1f}) "
            f"| {row['ratio']:.1f} | {row['per_second']:.1f} | {row['tokens_per_kb']:.0f} |"
        )


def documents(data: Path, lang: str, arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Documents to train on and documents to encode, an equal part of both from each source."""
    train: list[str] = []
    held_out: list[str] = []
    for name in SOURCES[lang]:
        wanted = {0: arguments.train_mb * 1e6 / len(SOURCES[lang]), 1: arguments.encode_mb * 1e6 / len(SOURCES[lang])}
        with (data / "pretrain" / lang / f"{name}.jsonl.zst").open("rb") as stream:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(stream)
            for number, line in enumerate(io.TextIOWrapper(reader, encoding="utf-8")):
                if max(wanted.values()) <= 0:
                    break
                text = json.loads(line)["text"]
                if wanted[number % 2] > 0:
                    (train, held_out)[number % 2].append(text)
                    wanted[number % 2] -= len(text.encode())
    return train, held_out


def encoders(folder: Path) -> dict[str, Encode]:
    """Everything that runs our vocabulary; each takes a batch of texts and returns their tokens as lists, or arrays."""
    import sentencepiece
    import tokenizers

    ours = Tokenizer.load(folder)
    with_cache = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    without_cache = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    without_cache.model._resize_cache(0)
    for backend in (with_cache, without_cache):
        backend.encode_special_tokens = True
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return {
        REFERENCE: by_tokenizers(with_cache),
        "tokenizers, cache off": by_tokenizers(without_cache),
        "sentencepiece": lambda batch: model.encode(list(batch), num_threads=1),
        "Diglot": lambda batch: ours.encode_batch(batch, threads=False),
        "Diglot, arrays": lambda batch: ours.encode_arrays(batch, threads=False),
        f"Diglot, {host().num_cores} threads": lambda batch: ours.encode_batch(batch),
        f"Diglot, arrays, {host().num_cores} threads": lambda batch: ours.encode_arrays(batch),
    }


def byte_level_encoders(training: Sequence[str]) -> dict[str, Encode]:
    """tokenizers and tiktoken with a vocabulary that both can run."""
    import tiktoken
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(training, trainer)
    of_character = byte_alphabet()
    ranks = {
        bytes(of_character[character] for character in spelling): token
        for spelling, token in backend.get_vocab().items()
    }
    encoding = tiktoken.Encoding("benchmark", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    return {
        "tokenizers, byte-level vocabulary": by_tokenizers(backend),
        "tiktoken, byte-level vocabulary": lambda batch: [encoding.encode_ordinary(text) for text in batch],
    }


def by_tokenizers(backend: Any) -> Encode:
    return lambda batch: [encoding.ids for encoding in backend.encode_batch_fast(list(batch), add_special_tokens=False)]


def measure(
    lang: str, texts: Sequence[str], own: dict[str, Encode], byte_level: dict[str, Encode], rounds: int
) -> list[dict[str, Any]]:
    """One row for each encoder."""
    num_bytes = sum(len(text.encode()) for text in texts)
    num_tokens = {
        name: count for group in (own, byte_level) for name, count in equal_tokens(lang, texts, group).items()
    }
    cpu_s: dict[str, list[float]] = {name: [] for name in num_tokens}
    wall_s: dict[str, list[float]] = {name: [] for name in num_tokens}
    for number in range(rounds):
        for name, encode in (own | byte_level).items():
            cpu, wall = time.process_time(), time.perf_counter()
            for start in range(0, len(texts), BATCH):
                encode(texts[start : start + BATCH])
            cpu_s[name].append(time.process_time() - cpu)
            wall_s[name].append(time.perf_counter() - wall)
            print(
                f"{lang} round {number + 1}/{rounds}  {name:<36} {num_bytes / cpu_s[name][-1] / 1e6:7.2f}", flush=True
            )
    megabytes, base = num_bytes / 1e6, statistics.median(cpu_s[REFERENCE])
    return [
        {
            "lang": lang,
            "encoder": name,
            "megabytes": megabytes,
            "per_core_second": megabytes / statistics.median(seconds),
            "low": megabytes / max(seconds),
            "high": megabytes / min(seconds),
            "ratio": base / statistics.median(seconds),
            "per_second": megabytes / statistics.median(wall_s[name]),
            "tokens_per_kb": num_tokens[name] / num_bytes * 1000,
        }
        for name, seconds in cpu_s.items()
    ]


def equal_tokens(lang: str, texts: Sequence[str], group: dict[str, Encode]) -> dict[str, int]:
    """Warm every encoder up on all texts; the number of tokens of each. Stops when two of the group differ."""
    found = {name: as_lists(encode(texts)) for name, encode in group.items()}
    first = next(iter(found))
    for name, lists in found.items():
        differing = [row for row, (a, b) in enumerate(zip(found[first], lists, strict=True)) if a != b]
        assert not differing, f"{lang}: {name} and {first} differ in documents {differing[:5]}"
    return {name: sum(map(len, lists)) for name, lists in found.items()}


def as_lists(encoded: Any) -> list[list[int]]:
    if isinstance(encoded, list):
        return encoded
    offsets = encoded.offsets.tolist()
    return [encoded.tokens[start:stop].tolist() for start, stop in itertools.pairwise(offsets)]


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("tokenizers", "sentencepiece", "tiktoken", "numba")}


if __name__ == "__main__":
    main()
