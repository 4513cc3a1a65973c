"""Parallel sentences stay in step, whatever file they come from, and a file that is not in step is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from diglot.core.errors import ConfigError, InputError
from diglot.corpus.parallel import observe_parallel, read_parallel

ENGLISH = ["A list of packages.", "Press the key.", "Wait."]
CHINESE = ["软件包列表。", "按下按键。", "请等待。"]
BOTH = {"en": ENGLISH, "zh-Hans": CHINESE}
LANGUAGES = ["zh-Hans", "en", "zh-Hant"]


def read(folder: Path, source: object, **fields: str) -> tuple[dict[str, list[str]], int]:
    return read_parallel(source, {key.replace("_", "-"): value for key, value in fields.items()}, LANGUAGES, [folder])


def json_lines(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_json_lines_are_found_by_language_or_its_primary_subtag(tmp_path: Path) -> None:
    rows = [{"i": n, "doc": "d", "en": en, "zh": zh} for n, (en, zh) in enumerate(zip(ENGLISH, CHINESE, strict=True))]
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(json_lines(rows)))
    assert read(tmp_path, "pairs.jsonl.gz") == (BOTH, 0)


def test_nested_fields_are_named_with_dots(tmp_path: Path) -> None:
    rows = [{"text": {"eng": en, "zho-CN": zh}} for en, zh in zip(ENGLISH, CHINESE, strict=True)]
    (tmp_path / "many.jsonl").write_bytes(json_lines(rows))
    assert read(tmp_path, "many.jsonl", en="text.eng", zh_Hans="text.zho-CN") == (BOTH, 0)


def test_the_first_line_of_a_table_names_its_languages(tmp_path: Path) -> None:
    rows = "\r\n".join(f"{n}\t{zh}\t{en}" for n, (en, zh) in enumerate(zip(ENGLISH, CHINESE, strict=True)))
    (tmp_path / "pairs.tsv").write_text(f"\ufeffnumber\tzh\ten\r\n{rows}\r\n")
    assert read(tmp_path, "pairs.tsv") == (BOTH, 0)


def test_aligned_text_files_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("\n".join(ENGLISH))
    (tmp_path / "a.zh").write_text("\n".join(CHINESE) + "\n")
    assert read(tmp_path, {"en": "a.en", "zh-Hans": "a.zh"}) == (BOTH, 0)


def test_a_sentence_without_a_translation_is_left_out_in_both(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\n \nthree\n")
    (tmp_path / "a.zh").write_text("一\n二\n三\n")
    assert read(tmp_path, {"en": "a.en", "zh": "a.zh"}) == ({"en": ["one", "three"], "zh": ["一", "三"]}, 1)


def test_files_of_unequal_length_are_refused_with_their_lengths(tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("one\ntwo\n")
    (tmp_path / "a.zh").write_text("一\n")
    with pytest.raises(InputError, match=r"a\.en 2.*a\.zh 1"):
        read(tmp_path, {"en": "a.en", "zh": "a.zh"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"en": "a", "zh": "b"}\n{"en": "a"', "line 2 is not JSON"),
        ("a.jsonl", b'{"en": "a", "zh": "b"}\n[1]', "line 2 is a list"),
        ("a.jsonl", b"", "is empty"),
        ("a.tsv", b"", "is empty"),
        ("a.tsv", b"en\tzh\na\tb\nc\n", "line 3 has 1 columns, but the first line names 2"),
        ("a.tsv", b"en\tzh\n\t\n", "no sentence"),
        ("a.jsonl", b"\xff\xfe", "no UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"en": "a", "zh": "b"}\n')[:-9], "truncated"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(tmp_path, name)


def test_a_file_without_two_languages_is_refused_with_its_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(json_lines([{"src": "a", "tgt": "b"}]))
    with pytest.raises(ConfigError, match="fields src, tgt"):
        read(tmp_path, "a.jsonl")
    with pytest.raises(ConfigError, match="no text in target"):
        read(tmp_path, "a.jsonl", en="src", zh="target")


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    for name, content in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(content)
    a, b, c = (observe_parallel(name, [tmp_path]) for name in "abc")
    assert a == b != c
    with pytest.raises(InputError, match="no file of parallel sentences d"):
        observe_parallel("d", [tmp_path])


def test_the_shared_pairs_are_read(shared: Path) -> None:
    found, left_out = read_parallel("parallel/ntrex_en-zh.jsonl.zst", {}, LANGUAGES, [shared])
    assert {lang: len(sentences) for lang, sentences in found.items()} == {"zh-Hans": 1062, "en": 1062}
    assert left_out == 0
