"""Spans are real, maximal, apart from each other, and lead to the right documents and training steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import write_json
from diglot.corpus.pack import DOCUMENTS, PackedTokens, document_file, token_file
from diglot.corpus.tables import write_table
from diglot.tokenizer.export import write_tokenizer
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.tokenizer.training import TrainingSettings, train_vocabulary
from diglot.trace.attribution import Reads, Span, attribute
from diglot.trace.training_index import TrainingIndex

GUIDE = [
    "The list of packages is kept on the server; a copy of the list is kept here. Packages need other packages.",
    'They said: "package managers read the list of packages before they remove anything at all".\n\tIndented lines.',
    "A copy of the list is kept here, and the tool asks before it removes anything.",
]
HANDBOOK = [
    "软件包列表保存在服务器上，本地也保存一份列表。软件包管理器在删除任何内容之前进行询问。",
    "请打开终端，输入管理器的名称，然后输入软件包的名称。本地也保存一份列表，以备不时之需。",
]
STREAMS = {"guide.en": GUIDE, "handbook.zh-Hans": HANDBOOK}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, *train_vocabulary([*GUIDE, *HANDBOOK], TrainingSettings(vocab_size=440, max_piece_chars=6)))
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> PackedTokens:
    """Two streams, and a held-out one that must not be indexed."""
    folder = tmp_path_factory.mktemp("pack")
    records = []
    for split, stream, texts in [
        *(("train", *item) for item in STREAMS.items()),
        ("heldout", "guide.en", ["Secret words."]),
    ]:
        source, _, lang = stream.partition(".")
        documents = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]
        lengths = [len(document) for document in documents]
        token_file(folder, split, stream).parent.mkdir(parents=True, exist_ok=True)
        np.concatenate(documents).astype("<u2").tofile(token_file(folder, split, stream))
        ids = [f"{split}-{source}-{n}" for n in range(len(texts))]
        columns = [ids, np.cumsum([0, *lengths[:-1]]), lengths, [len(text.encode()) for text in texts]]
        write_table(document_file(folder, split, stream), pa.table(columns, schema=DOCUMENTS))
        records.append(
            {
                "split": split,
                "stream": stream,
                "source": source,
                "lang": lang,
                "num_tokens": sum(lengths),
                "num_documents": len(texts),
                "num_bytes": sum(columns[3]),
                "dtype": "uint16",
                "vocab_size": tokenizer.vocab_size,
            }
        )
    write_json(folder / "streams.json", records)
    return PackedTokens.open(folder)


@pytest.fixture(scope="module")
def index(packed: PackedTokens) -> TrainingIndex:
    return TrainingIndex.build(packed, {"train-guide-0": "https://example.org/guide/0"})


def trace(text: str, tokenizer: Tokenizer, index: TrainingIndex, **limits: int) -> list[Span]:
    return attribute(text, tokenizer, index, **({"min_tokens": 3, "min_chars": 4} | limits))


@pytest.mark.parametrize("text", [*GUIDE, *HANDBOOK])
def test_a_training_document_is_one_span(text: str, tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace(text, tokenizer, index)
    assert (span.text, span.start, span.end, span.count) == (text, 0, len(text), 1)


def test_a_span_names_its_documents_in_the_order_of_the_corpus(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace("Nobody knows that this copy of the list is kept here!", tokenizer, index)
    assert span.text == "copy of the list is kept here"
    assert [document.id for document in span.documents] == ["train-guide-0", "train-guide-2"]
    assert (span.count, span.num_documents) == (2, 2)
    first = span.documents[0]
    assert (first.source, first.lang, first.stream, first.url) == (
        "guide",
        "en",
        "guide.en",
        "https://example.org/guide/0",
    )
    assert span.documents[1].url is None


def test_at_most_so_many_documents_are_named(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace("copy of the list is kept here", tokenizer, index, max_documents=1)
    assert (len(span.documents), span.num_documents, span.count) == (1, 2, 2)


@pytest.mark.parametrize("text", [*GUIDE, *HANDBOOK])
def test_positions_are_those_of_the_stream(
    text: str, tokenizer: Tokenizer, index: TrainingIndex, packed: PackedTokens
) -> None:
    for span in trace(text[3:-5], tokenizer, index):
        for found in span.documents:
            stream = packed.stream("train", found.stream)
            tokens = stream.tokens[found.position : found.position + span.num_tokens]
            assert span.text in tokenizer.decode(tokens)
            assert stream.document_at(found.position).id == found.id


def test_the_start_of_a_text_is_found_behind_a_space(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace("list of packages before they remove", tokenizer, index)
    assert span.text == "list of packages before they remove"
    (quoted,) = trace("“list of packages before they remove”", tokenizer, index)
    assert (quoted.text, quoted.start) == ("list of packages before they remove", 1)


@pytest.mark.parametrize("start", range(1, 14))
def test_chinese_is_found_from_any_character_on(start: int, tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace("〇" + HANDBOOK[0][start:], tokenizer, index)
    missing = len(HANDBOOK[0]) - start - len(span.text)
    assert missing <= 5, "only a part of one piece may be lost"


@pytest.mark.parametrize("length", range(8, 30))
def test_chinese_is_found_up_to_any_character(length: int, tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace(HANDBOOK[0][:length] + "〇", tokenizer, index)
    assert length - len(span.text) <= 5


def test_spans_end_at_words(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace("a copy of the lists", tokenizer, index)
    assert span.text == "a copy of the"
    (span,) = trace("repackages is kept on the server", tokenizer, index)
    assert span.text == "is kept on the server"


def test_no_span_crosses_from_one_document_to_the_next(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    spans = trace(GUIDE[0] + GUIDE[1], tokenizer, index)
    assert {span.text for span in spans} == {GUIDE[0], GUIDE[1]}


def test_the_longest_span_wins_and_the_rest_is_searched_again(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    text = "the list of packages before it removes anything."
    spans = trace(text, tokenizer, index, min_tokens=2)
    assert [span.text for span in sorted(spans, key=lambda s: s.start)] == [
        "the list of packages",
        "before it removes anything.",
    ]


def test_held_out_documents_are_not_in_the_index(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    assert trace("Secret words.", tokenizer, index) == []


def test_short_matches_are_left_out(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    text = "a copy of the list"
    num_tokens = len(tokenizer.encode(text))
    assert trace(text, tokenizer, index, min_tokens=num_tokens, min_chars=len(text))
    assert not trace(text, tokenizer, index, min_tokens=num_tokens + 2)
    assert not trace(text, tokenizer, index, min_chars=len(text) + 1)
    with pytest.raises(ConfigError):
        trace(text, tokenizer, index, min_tokens=0)


@pytest.mark.parametrize("text", ["", " ", "\n", "\0", "𠮷", "\u2581", "zzz"])
def test_texts_without_a_match_have_no_spans(text: str, tokenizer: Tokenizer, index: TrainingIndex) -> None:
    assert trace(text, tokenizer, index) == []


PARTS = st.sampled_from([text[a:b] for text in [*GUIDE, *HANDBOOK] for a, b in [(0, 9), (4, 30), (11, 40), (25, 44)]])


@settings(max_examples=150, deadline=None)
@given(text=st.lists(PARTS | st.text(max_size=3), max_size=5).map("".join).filter(lambda t: t.isprintable()))
def test_spans_of_any_text_are_real_and_apart(text: str, tokenizer: Tokenizer, index: TrainingIndex) -> None:
    spans = trace(text, tokenizer, index)
    corpus = [*GUIDE, *HANDBOOK]
    assert [span.num_tokens for span in spans] == sorted((span.num_tokens for span in spans), reverse=True)
    covered: set[int] = set()
    for span in spans:
        assert text[span.start : span.end] == span.text
        assert span.text == span.text.strip()
        assert 1 <= span.num_documents <= span.count <= sum(document.count(span.text) for document in corpus)
        assert not covered & set(range(span.start, span.end))
        covered |= set(range(span.start, span.end))


class EverySequenceOnce:
    """Reads sequence k of each stream at training step 10 * k in one phase and at 1000 + k in the next.

    parts: how many sequences of each phase make one of the longest.
    """

    def __init__(self, *parts: int) -> None:
        self.phases = [SimpleNamespace(pieces_per_block=part) for part in parts or (1, 1)]
        self.sizes = {"guide.en": 4, "handbook.zh-Hans": 100}

    def num_sequences(self, stream: str, phase: int) -> int:
        return self.sizes.get(stream, 0) * int(self.phases[phase].pieces_per_block)

    def train_steps(self, stream: str, sequence_index: int, phase: int) -> Sequence[int]:
        assert 0 <= sequence_index < self.num_sequences(stream, phase)
        return [(10 * sequence_index, 1000 + sequence_index)[phase]]


def test_training_steps_are_those_of_the_sequences_that_hold_the_span(
    tokenizer: Tokenizer, index: TrainingIndex
) -> None:
    reads = Reads(EverySequenceOnce(), sequence_length=8)
    (span,) = attribute(HANDBOOK[1][6:30], tokenizer, index, reads=reads)
    (document,) = span.documents
    sequences = {  # sequence k holds the tokens 8 k to 8 k + 8
        k
        for t in range(document.position, document.position + span.num_tokens)
        for k in range(99)
        if 8 * k <= t <= 8 * k + 8
    }
    assert document.train_steps == tuple(sorted([*(10 * k for k in sequences), *(1000 + k for k in sequences)]))


def test_tokens_that_no_sequence_reads_have_no_training_steps() -> None:
    reads = Reads(EverySequenceOnce(), sequence_length=8)
    assert reads.train_steps("guide.en", 31, 33) == (30, 1003)  # token 32 closes the last sequence
    assert reads.train_steps("guide.en", 33, 60) == ()
    assert reads.train_steps("other.en", 0, 5) == ()
    assert reads.train_steps("guide.en", 0, 1) == (0, 1000)
    assert reads.train_steps("guide.en", 16, 17) == (
        10,
        20,
        1001,
        1002,
    )  # the last target of one, the first input of the next


def test_a_phase_of_shorter_sequences_is_asked_for_its_own() -> None:
    reads = Reads(EverySequenceOnce(1, 2), sequence_length=8)
    assert reads.train_steps("guide.en", 9, 10) == (10, 1002)  # inside sequence 1 of eight, and 2 of four
    assert reads.train_steps("guide.en", 12, 13) == (10, 1002, 1003)


def test_without_a_run_training_steps_are_unknown(tokenizer: Tokenizer, index: TrainingIndex) -> None:
    (span,) = trace(GUIDE[2], tokenizer, index)
    assert span.documents[0].train_steps is None
    assert span.to_dict()["documents"][0]["id"] == "train-guide-2"


def test_a_saved_index_answers_alike(tmp_path: Path, tokenizer: Tokenizer, index: TrainingIndex) -> None:
    index.save(tmp_path)
    text = " ".join([GUIDE[1], HANDBOOK[0], GUIDE[0]])
    assert trace(text, tokenizer, TrainingIndex.open(tmp_path)) == trace(text, tokenizer, index)


def test_an_index_whose_parts_do_not_fit_is_refused(tmp_path: Path, index: TrainingIndex) -> None:
    index.save(tmp_path)
    write_table(tmp_path / "documents.parquet", index.documents.slice(1))
    with pytest.raises(InputError, match="but its documents have"):
        TrainingIndex.open(tmp_path)
