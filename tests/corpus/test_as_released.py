"""The defects of MAP-Neo's released code, reproduced, and the faithful policies that do not have them."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest

from diglot.corpus.policy import load_policy
from diglot.corpus.signals import AS_RELEASED, REPETITION, SIGNALS, definition
from diglot.corpus.signals.attributes import measure
from diglot.text.language import identify

PARAGRAPH = (
    "Before you install anything, a package manager reads every list from its sources, works out which other programs "
    "are needed, and asks whether to go on. Nothing is lost if you stop here and resume later."
)
CHINESE = (
    "软件包是一个文件，其中包含一个软件的程序和文档。安装之前，软件包管理器会读取软件源提供的列表，判断还需要哪些其他的包，"
    "并询问是否继续。如果中途出错，不会丢失任何内容：再次运行同一条命令，它会从停止的地方继续。"
)


def objecting(policy, text):
    tables = [measure(pa.array([text], pa.large_string()), name) for name in ("quality", "repetition", "as_released")]
    columns = {name: column.to_numpy(zero_copy_only=False) for table in tables for name, column in table.items()}
    columns["lang_score"] = columns["released_lang_score"]
    objections = policy.objections(columns)[:, 0]
    return [rule.name for rule, against in zip(policy.rules, objections, strict=True) if against]


def test_d3_a_paragraph_given_ten_times_passes_every_released_limit_of_repetition():
    assert len(PARAGRAPH) == 202
    text = " ".join([PARAGRAPH] * 10)
    assert max(definition(f"released_top_{n}gram")(text) for n in (2, 3, 4)) <= 0.059
    assert max(definition(f"released_duplicate_{n}gram")(text) for n in range(5, 11)) <= 0.019
    assert not any("gram" in rule for rule in objecting(load_policy("matrix-en-as-released"), text))
    assert "duplicate_10gram_share" in objecting(load_policy("matrix-en"), text)


def test_d1_the_chinese_code_never_rejects_for_repetition():
    text = "\n".join([CHINESE] * 5)
    released = load_policy("matrix-zh-as-released")
    assert objecting(released, text) == []
    assert not any(re.match("released_(top|duplicate)", signal) for signal in released.signals())
    assert set(objecting(load_policy("matrix-zh"), text)) & set(REPETITION)


def test_d4_a_text_in_another_language_has_a_score_and_passes():
    german = (
        "Bevor Sie das System installieren, legen Sie bitte eine Kopie aller Dateien auf einem anderen Datenträger an."
    )
    assert definition("released_lang_score")(german) > 0.4
    assert "released_lang_score" not in objecting(load_policy("matrix-en-as-released"), german)


def test_line_feeds_are_deleted_before_the_language_is_asked_for_so_that_words_glue():
    lines = "the package\nmanager reads\nthe list\nof what\nis there"
    glued = "the packagemanager readsthe listof whatis there"
    assert definition("released_lang_score")(lines) == identify(glued).score != identify(lines).score


@pytest.mark.parametrize(
    ("signal", "text", "limit"),
    [
        ("ellipses", "\n".join(f"{word} and more ..." for word in PARAGRAPH.split()), 0.1),  # every line: G2 as meant
        ("letterless", " ".join(f"{n} | {word}" for n, word in enumerate(PARAGRAPH.split() * 4)), 0.4),  # G4
        ("hashes", "#installation #administrator #documentation #configuration #repositories", 0.1),  # S3
    ],
)
def test_shares_of_characters_stay_below_limits_that_shares_of_words_or_lines_exceed(signal, text, limit):
    assert definition(f"released_{signal}_per_char")(text) < limit
    faithful = {"ellipses": "ellipsis_line_share", "letterless": "letterless_share", "hashes": "hash_ratio"}[signal]
    assert faithful in objecting(load_policy("matrix-en"), text)


def test_a_long_chinese_document_is_lost_and_kept_by_the_faithful_policy():
    text = "".join(chr(0x4E00 + (n * n * 7919) % 4000) + "。" * (n % 17 == 0) for n in range(10_100))
    assert "released_zh_num_chars" in objecting(load_policy("matrix-zh-as-released"), text)
    assert "num_chars" not in objecting(load_policy("matrix-zh"), text)


def test_every_released_signal_names_its_rule_and_is_read_by_a_policy():
    policies = [load_policy("matrix-en-as-released"), load_policy("matrix-zh-as-released")]
    read = {signal for policy in policies for signal in policy.signals()}
    assert read - {"stop_words_en"} == set(AS_RELEASED)
    for name in AS_RELEASED:
        function = definition(name)
        assert re.match(r"[A-Z]+\d", getattr(function, "func", function).__doc__)
    assert len(SIGNALS) > len(AS_RELEASED)
