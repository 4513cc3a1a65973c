"""The reader of packed tokens finds every document again, and notices files that do not fit their index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.corpus.pack import DOCUMENTS, PackedTokens, document_file, stream_name, token_dtype, token_file
from diglot.corpus.tables import write_table

LENGTHS = [3, 1, 5, 2]


def write_stream(folder: Path, lengths: list[int], split: str = "train", vocab_size: int = 100) -> dict[str, object]:
    """Write a stream whose token at position p is p; returns its record."""
    dtype, num_tokens = token_dtype(vocab_size), sum(lengths)
    path = token_file(folder, split, "guide.en")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.arange(num_tokens).astype(np.dtype(dtype).newbyteorder("<")).tofile(path)
    starts = np.cumsum([0, *lengths])[: len(lengths)]
    columns = [[f"doc-{n}" for n in range(len(lengths))], starts, lengths, [7 * length for length in lengths]]
    write_table(document_file(folder, split, "guide.en"), pa.table(columns, schema=DOCUMENTS))
    return {
        "split": split,
        "stream": "guide.en",
        "source": "guide",
        "lang": "en",
        "num_tokens": num_tokens,
        "num_documents": len(lengths),
        "num_bytes": 7 * num_tokens,
        "dtype": dtype,
        "vocab_size": vocab_size,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "streams.json", [write_stream(tmp_path, LENGTHS)])
    return tmp_path


def test_every_position_leads_to_its_document(folder: Path) -> None:
    stream = PackedTokens.open(folder).stream("train", "guide.en")
    expected = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
    found = [stream.document_at(position) for position in range(stream.num_tokens)]
    assert [document.row for document in found] == expected
    assert found[4] == (2, "doc-2", 4, 5, 35)
    for position in (-1, 11):
        with pytest.raises(InputError, match=r"has tokens 0\.\.10"):
            stream.document_at(position)


@given(start=st.integers(0, 10), length=st.integers(1, 20))
def test_a_stretch_of_tokens_leads_to_all_its_documents(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "stretch"
    if not folder.exists():
        write_json(folder / "streams.json", [write_stream(folder, LENGTHS)])
    stream = PackedTokens.open(folder).stream("train", "guide.en")
    one_by_one = [stream.document_at(position) for position in range(start, min(start + length, 11))]
    assert stream.documents_between(start, start + length) == sorted(set(one_by_one))


def test_tokens_are_read_as_written(folder: Path) -> None:
    stream = PackedTokens.open(folder).streams("train")[0]
    assert isinstance(stream.tokens, np.memmap)
    np.testing.assert_array_equal(stream.tokens, np.arange(11))


def test_a_document_is_found_by_its_id(folder: Path) -> None:
    packed = PackedTokens.open(folder)
    found = packed.find("doc-3")
    assert found is not None
    assert (found[0].stream, found[1].start, found[1].num_tokens) == ("guide.en", 9, 2)
    assert packed.find("nobody") is None


@pytest.mark.parametrize("cut", [1, 2, 22])
def test_a_truncated_or_longer_token_file_is_refused(folder: Path, cut: int) -> None:
    path = token_file(folder, "train", "guide.en")
    content = path.read_bytes()
    for damaged in (content[:-cut], content + b"\0" * cut):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"streams\.json says 11 tokens"):
            _ = PackedTokens.open(folder).streams("train")[0].tokens


def test_a_missing_token_file_is_refused(folder: Path) -> None:
    token_file(folder, "train", "guide.en").unlink()
    with pytest.raises(InputError, match="has 0 bytes"):
        _ = PackedTokens.open(folder).streams("train")[0].tokens


@pytest.mark.parametrize("lengths", [[3, 1, 5], [3, 1, 5, 1], [3, 1, 5, 2, 1]])
def test_a_document_table_of_other_tokens_is_refused(folder: Path, lengths: list[int]) -> None:
    record = read_json(folder / "streams.json")
    write_stream(folder, lengths)
    write_json(folder / "streams.json", record)
    with pytest.raises(InputError, match="does not cover the 11 tokens of 4 documents"):
        _ = PackedTokens.open(folder).streams("train")[0].documents


def test_a_stream_without_documents_can_be_read(tmp_path: Path) -> None:
    write_json(tmp_path / "streams.json", [write_stream(tmp_path, [])])
    stream = PackedTokens.open(tmp_path).streams("train")[0]
    assert len(stream.tokens) == len(stream.documents) == 0


def test_unknown_streams_and_missing_or_damaged_lists_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'guide\.en'"):
        PackedTokens.open(folder).stream("train", "guide.e")
    (folder / "streams.json").write_text('[{"split"')
    with pytest.raises(InputError, match="damaged"):
        PackedTokens.open(folder)
    (folder / "streams.json").unlink()
    with pytest.raises(InputError, match="holds no packed tokens"):
        PackedTokens.open(folder)


def test_ids_take_two_bytes_as_long_as_they_fit() -> None:
    assert [token_dtype(size) for size in (300, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]


def test_a_stream_name_is_a_file_name() -> None:
    assert stream_name("debian/faq", "zh-Hans") == "debian-faq.zh-Hans"
