"""Every kernel equals its pure Python definition, on random and on awkward texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from texts_to_try import PIECES, batches, texts

from diglot.corpus.signals import QUALITY, REPETITION, definition
from diglot.kernels.jit import classes, text_buffers
from diglot.kernels.quality import COLUMNS as QUALITY_COLUMNS
from diglot.kernels.quality import quality
from diglot.kernels.repetition import COLUMNS as REPETITION_COLUMNS
from diglot.kernels.repetition import repetition
from diglot.kernels.units import MARKS, scan_text, scan_units
from diglot.text.lines import lines, sentence_units
from diglot.text.units import unit_hash, units

KERNELS = {"quality": (quality, QUALITY_COLUMNS), "repetition": (repetition, REPETITION_COLUMNS)}


def measured(kernel, batch):
    return kernel(*text_buffers(pa.array(batch, pa.large_string())), classes())


def defined(columns, batch):
    return np.array([[definition(name)(text) for name in columns] for text in batch]).reshape(len(batch), len(columns))


def test_kernels_and_the_written_table_list_the_same_columns():
    assert tuple(QUALITY) == QUALITY_COLUMNS
    assert tuple(REPETITION) == REPETITION_COLUMNS


@pytest.mark.parametrize("family", KERNELS)
@settings(max_examples=400, deadline=None)
@given(batch=batches)
def test_signals_equal_their_definitions(family, batch):
    kernel, columns = KERNELS[family]
    found = measured(kernel, batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, defined(columns, batch), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", KERNELS)
def test_signals_equal_their_definitions_on_every_pair_of_awkward_pieces(family):
    kernel, columns = KERNELS[family]
    batch = [left + right for left in PIECES for right in PIECES[::7]] + [
        f"{piece}a {piece}\n{piece}" for piece in PIECES
    ]
    found, expected = measured(kernel, batch), defined(columns, batch)
    wrong = np.argwhere(~np.isclose(found, expected, rtol=1e-5, atol=1e-6))
    assert not len(wrong), [(batch[row], columns[column], found[row, column]) for row, column in wrong[:5]]


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_scanned_units_equal_the_definition(text):
    utf8 = np.frombuffer(text.encode() or b"\0", np.uint8)
    hashes, lengths = np.zeros(len(utf8), np.uint64), np.zeros(len(utf8), np.int32)
    number = scan_units(utf8, 0, len(text.encode()), classes(), hashes, lengths)
    assert hashes[:number].tolist() == [unit_hash(unit) for unit in units(text)]
    assert lengths[:number].tolist() == [len(unit) for unit in units(text)]


@settings(max_examples=300, deadline=None)
@given(text=texts)
def test_one_scan_finds_the_units_the_lines_and_where_sentences_start(text):
    utf8 = np.frombuffer(text.encode() or b"\0", np.uint8)
    size = len(utf8)
    hashes, lengths, starts = np.zeros(size, np.uint64), np.zeros(size, np.int32), np.zeros(size, np.uint8)
    line_hashes, line_lengths = np.zeros(size, np.uint64), np.zeros(size, np.int32)
    num_units, num_lines = scan_text(
        utf8, 0, len(text.encode()), classes(), MARKS, hashes, lengths, starts, line_hashes, line_lengths
    )
    assert hashes[:num_units].tolist() == [unit_hash(unit) for unit in units(text)]
    assert lengths[:num_units].tolist() == [len(unit) for unit in units(text)]
    assert starts[:num_units].tolist() == [int(i == 0) for one in sentence_units(text) for i in range(len(one))]
    assert line_hashes[:num_lines].tolist() == [unit_hash(line) for line in lines(text)]
    assert line_lengths[:num_lines].tolist() == [len(line) for line in lines(text)]


@pytest.mark.parametrize("family", KERNELS)
def test_a_document_is_measured_alike_alone_in_a_batch_and_in_a_slice(family):
    kernel, _ = KERNELS[family]
    batch = ["first 文字. ", "", "second second\n- x", "", "third…", "lore", "m ipsum", "lorem i", "psum"]
    together = measured(kernel, batch)
    for number, text in enumerate(batch):
        np.testing.assert_array_equal(measured(kernel, [text])[0], together[number])
    cut = pa.array(batch, pa.large_string()).slice(2, 2)
    np.testing.assert_array_equal(kernel(*text_buffers(cut), classes()), together[2:4])


def test_no_documents_and_only_empty_documents():
    for kernel, columns in KERNELS.values():
        assert measured(kernel, []).shape == (0, len(columns))
        assert not measured(kernel, ["", ""]).any()


def test_a_document_shorter_than_the_smallest_table_stays_inside_it():
    """Compiled code does not look where it writes; interpreted, it raises IndexError."""
    code = (
        "import numpy as np, pyarrow as pa\n"
        "from diglot.kernels.jit import classes, text_buffers\n"
        "from diglot.kernels.repetition import repetition\n"
        "np.seterr(over='ignore')\n"
        "print(repetition(*text_buffers(pa.array(['c c c c'], pa.large_string())), classes()).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), defined(REPETITION_COLUMNS, ["c c c c"]), rtol=1e-5, atol=1e-6)


def test_signals_equal_their_definitions_on_real_prose(shared):
    zstandard = pytest.importorskip("zstandard")
    batch = []
    for name in ("en/vue_docs", "zh/vue_docs", "zh/cn_poetry"):
        with (shared / "pretrain" / f"{name}.jsonl.zst").open("rb") as stream:
            start = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(stream).read(200_000)
        batch.append(start.decode(errors="ignore").replace("\\n", "\n")[:8_000])
    for kernel, columns in KERNELS.values():
        np.testing.assert_allclose(measured(kernel, batch), defined(columns, batch), rtol=2e-5, atol=1e-6)
