"""Attribute columns of a batch of texts, one function a family. Families are measured together and stored apart.

quality, repetition   float32 columns named like the signals; quality also num_bytes
language              lang (BCP 47, null without letters), lang_score
hashes                content_hi, content_lo: xxh3-128 of the normalised text
minhash               signature, num_shingles
as_released           float32 columns named like the signals
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from diglot.corpus.signals import AS_RELEASED, QUALITY, REPETITION, definition

if TYPE_CHECKING:
    from collections.abc import Callable

Columns = dict[str, Any]


def measure(texts: pa.LargeStringArray, family: str, **settings: Any) -> Columns:
    """The attribute columns of `family` for a batch without nulls: name -> pyarrow array of the batch's length."""
    measurers: dict[str, Callable[..., Columns]] = {
        "quality": quality,
        "repetition": repetition,
        "language": language,
        "hashes": hashes,
        "minhash": minhash,
        "as_released": as_released,
    }
    return measurers[family](texts, **settings)


def quality(texts: pa.LargeStringArray) -> Columns:
    from diglot.kernels import quality as kernel
    from diglot.kernels.jit import classes, text_buffers

    offsets, utf8 = text_buffers(texts)
    assert tuple(QUALITY) == kernel.COLUMNS, "corpus.signals.QUALITY and the kernel list different columns"
    values = kernel.quality(offsets, utf8, classes())
    return {"num_bytes": pa.array(np.diff(offsets)), **_named(kernel.COLUMNS, values)}


def repetition(texts: pa.LargeStringArray) -> Columns:
    from diglot.kernels import repetition as kernel
    from diglot.kernels.jit import classes, text_buffers

    assert tuple(REPETITION) == kernel.COLUMNS, "corpus.signals.REPETITION and the kernel list different columns"
    return _named(kernel.COLUMNS, kernel.repetition(*text_buffers(texts), classes()))


def language(texts: pa.LargeStringArray) -> Columns:
    from diglot.text.language import SAMPLE_CHARS, identify

    # Cut in Arrow: only the sample of each text becomes a Python string.
    samples = pc.utf8_slice_codeunits(texts, 0, SAMPLE_CHARS).to_pylist()
    found = [identify(sample) for sample in samples]
    return {
        "lang": pa.array([tag for tag, _ in found], pa.string()),
        "lang_score": pa.array([score for _, score in found], pa.float32()),
    }


def hashes(texts: pa.LargeStringArray) -> Columns:
    from diglot.kernels.jit import text_buffers
    from diglot.kernels.normalize import content_hashes

    high, low = content_hashes(*text_buffers(texts))
    return {"content_hi": pa.array(high), "content_lo": pa.array(low)}


def minhash(texts: pa.LargeStringArray, *, num_permutations: int, seed: int) -> Columns:
    from diglot.kernels.jit import text_buffers
    from diglot.kernels.minhash import signatures

    signature, num_shingles = signatures(*text_buffers(texts), num_permutations, seed)
    flat = pa.array(signature.reshape(-1), pa.uint32())
    return {
        "signature": pa.FixedSizeListArray.from_arrays(flat, num_permutations),
        "num_shingles": pa.array(num_shingles, pa.int32()),
    }


def as_released(texts: pa.LargeStringArray) -> Columns:
    functions = {name: definition(name) for name in AS_RELEASED}
    rows = [[function(text) for function in functions.values()] for text in texts.to_pylist()]
    return _named(tuple(functions), np.array(rows, np.float32).reshape(len(rows), len(functions)))


def _named(names: tuple[str, ...], values: Any) -> Columns:
    return {name: pa.array(np.ascontiguousarray(values[:, i])) for i, name in enumerate(names)}
