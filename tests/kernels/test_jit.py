"""Where compiled kernels are kept, and what importing costs."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pyarrow as pa

from diglot.kernels import jit

LIGHT = (
    "diglot.corpus.policy",
    "diglot.corpus.signals",
    "diglot.steps.annotate",
    "diglot.steps.select",
    "diglot.text.units",
)


def test_policies_and_steps_import_without_numba():
    code = (
        f"import {', '.join(LIGHT)}, sys; print(sorted({{'numba', 'pyarrow', 'fasttext', 'torch'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_cache_folder_is_named_after_the_sources_and_falls_back_where_it_cannot_write(tmp_path, monkeypatch):
    jit.cache_folder.cache_clear()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
    try:
        given = jit.cache_folder()
        assert given.parent == tmp_path / "given"
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
        jit.cache_folder.cache_clear()
        fallback = jit.cache_folder()
        assert fallback.is_dir()
        assert fallback.name == given.name
    finally:
        jit.cache_folder.cache_clear()


def test_the_cache_is_another_when_a_table_changes_that_kernels_freeze(tmp_path, monkeypatch):
    for name in ("kernels/jit.py", "text/units.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "kernels" / "jit.py"))
    before = jit._fingerprint()
    assert jit._fingerprint() == before
    (tmp_path / "text" / "units.py").write_text("x = 2")
    assert jit._fingerprint() != before


def test_text_buffers_follow_the_offset_of_a_cut_array():
    texts = pa.array(["ab", "字", "", "cd"], pa.large_string())
    offsets, utf8 = jit.text_buffers(texts.slice(1, 3))
    assert [bytes(utf8[a:b]).decode() for a, b in itertools.pairwise(offsets)] == ["字", "", "cd"]
    offsets, utf8 = jit.text_buffers(pa.array([], pa.large_string()))
    assert offsets.tolist() == [0]
