"""Policies: reading them, judging by them, and a bad example for every rule of those that come with Diglot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import yaml

from diglot.core.errors import ConfigError
from diglot.corpus.decide import Policies, stored_policies
from diglot.corpus.policy import Rule, load_policy, parse_policy, policy_names
from diglot.corpus.signals import FAMILIES
from diglot.corpus.signals.attributes import measure
from diglot.text.lines import lines

ENGLISH = """Installing a package

A package is a file that holds the programs and the documentation of one piece of software. Before anything is
installed, the package manager reads the list of packages that its sources offer, works out which others are needed,
and asks whether it should go on.

• Open a terminal as the administrator of the machine.
• Update the list, so that you do not get an old version.
• Give the name of the package, and wait until the prompt returns.

If something fails on the way, nothing is lost: run the same command again, and it continues where it stopped. Files
that you changed yourself are kept, unless you say otherwise. "Which version do I have?" is a question that the manager
answers at any time.
"""
SIMPLIFIED = """安装软件包

软件包是一个文件，其中包含一个软件的程序和文档。安装之前，软件包管理器会读取软件源提供的列表，判断还需要哪些其他的包，并询问是否继续。

• 以管理员身份打开终端。
• 更新列表，以免得到旧版本。
• 输入名称，然后等待提示符返回。

如果中途出错，不会丢失任何内容：再次运行同一条命令，它会从停止的地方继续。您自己修改过的文件将被保留，除非另有说明。“我用的是哪个版本？”这个问题随时可以得到回答。
"""
TRADITIONAL = """安裝套件

套件是一個檔案，其中包含一個軟體的程式和說明文件。安裝之前，套件管理程式會讀取軟體來源提供的清單，判斷還需要哪些其他的套件，並詢問是否繼續。

• 以管理員身分開啟終端機。
• 更新清單，以免得到舊版本。
• 輸入名稱，然後等待提示符號出現。

如果中途出錯，不會遺失任何內容：再次執行同一個指令，它會從停止的地方繼續。您自己修改過的檔案將被保留，除非另有說明。「我用的是哪個版本？」這個問題隨時可以得到回答。
"""
LONGER = (
    ENGLISH
    + """
Removing a package

Removing is as simple as installing. The manager deletes what it wrote before, but it leaves your own settings where
they are, because you may want the program back some day. If you are certain, ask for a purge instead; then nothing
remains of it.

Some programs were only installed because others needed them. Once those others are gone, nobody uses the rest any
more, and a single command cleans them away. Look at the list first, since a program that you use every day might be
among them.
"""
)
CODE = '''"""Read a table of measurements."""

import csv


def read(path, column):
    """The values of one column as numbers; rows without a value are left out."""
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [float(row[column]) for row in rows if row[column]]
'''
CLEAN = {"en": ENGLISH, "zh-Hans": SIMPLIFIED, "zh-Hant": TRADITIONAL}


def book(num_sentences=450, seed=0):
    """Sentences of the words of a page in random order: no long run of them comes twice."""
    words, draw = [w.strip(".,:") for w in ENGLISH.split() if w.isalpha()], np.random.default_rng(seed)
    sentences = [" ".join(draw.choice(words, 12)).capitalize() + "." for _ in range(num_sentences)]
    return "\n".join(" ".join(sentences[i : i + 5]) for i in range(0, num_sentences, 5)) + "\n"


BOOK = book()
PASSAGE = " ".join(ENGLISH.split("\n")[2:5]) + " "
WORDS = [word.strip(".,:") for word in ENGLISH.split() if word.isalpha()]

BAD = {
    "matrix-en": {
        "num_units": "See the page on packages, and then the one on sources.",
        "num_chars": "To be or not to be, that is the question. " * 2,
        "num_sentences": " ".join(WORDS),
        "lang_score": "Sub Foo(x As Long) Dim y As Integer. apt dpkg -i foo bar; ls cd rm. la via non",
        "cjk_share": ENGLISH + SIMPLIFIED,
        "mean_unit_chars": ENGLISH + " ".join("QmFzZTY0ZW5jb2RlZGRhdGE" * 3 + str(n) for n in range(20)),
        "letterless_share": ENGLISH + " | ".join(str(n) for n in range(90)),
        "mixed_unit_share": ENGLISH + " ".join(f"file_{n}.txt" for n in range(60)),
        "number_unit_share": ENGLISH + " ".join(str(n * 37) for n in range(80)),
        "all_caps_share": ENGLISH + " ".join(w.upper() for w in WORDS[:30]),
        "stop_words_en": " ".join(w for w in WORDS if len(w) > 4) + ". Cheap shoes. " * 3,
        "hash_ratio": ENGLISH + " ".join(f"#{w}" for w in WORDS[:40]),
        "ellipsis_ratio": "... ".join(WORDS),
        "ellipsis_line_share": "\n".join(" ".join(WORDS[n : n + 9]) + " ..." for n in range(0, len(WORDS), 9)),
        "bullet_line_share": "\n".join("- " + " ".join(WORDS[n : n + 6]) for n in range(0, len(WORDS), 6)),
        "curly_share": ENGLISH + "function(){if(a){b()}else{c()}} " * 6,
        "lorem_ipsum": ENGLISH + "Lorem ipsum dolor sit amet.",
        "read_more_share": "\n".join(" ".join(WORDS[n : n + 9]) + ". Read more »" for n in range(0, len(WORDS), 9)),
        "num_punctuation": " ".join(WORDS),
        "unit_entropy": "the cat and the dog with that cat. " * 30,
        "unique_unit_share": "the cat and the dog with that cat. " * 30,
        "duplicate_line_share": ENGLISH + "Home\nHelp\n" * 20,
        "duplicate_line_char_share": ENGLISH + (WORDS[0] + " to the main page of the manual\n") * 12,
        "top_2gram_share": ENGLISH + "cheap shoes and " * 40,
        "top_3gram_share": ENGLISH + "buy cheap shoes " * 40,
        "top_4gram_share": ENGLISH + "buy cheap shoes here " * 40,
        **{f"duplicate_{n}gram_share": PASSAGE * 2 + ENGLISH for n in range(5, 11)},
    },
    "matrix-zh": {
        "num_chars": "请参阅软件包页面。然后继续。",
        "num_sentences": SIMPLIFIED.replace("。", "，").replace("？", "，").replace("！", "，"),
        "lang_score": "Foo bar baz; qux la da no si ja. Lorem tux ipso, ok de to be. Ad hoc via Linux. 软件",
        "cjk_share": SIMPLIFIED + ENGLISH * 3,
        "bracket_share": SIMPLIFIED + "【限时特价全场包邮】" * 8,
        "mean_unit_chars": "软件包。安装。" + " ".join("QmFzZTY0ZW5jb2RlZGRhdGE" * 3 + str(n) for n in range(20)),
        "hash_ratio": SIMPLIFIED + "#安装" * 30,
        "ellipsis_ratio": "软件……安装……列表……文件……终端……版本……" * 2,
        "digit_share": SIMPLIFIED + " ".join(str(13800000000 + n * 977) for n in range(20)),
        "read_more_share": "软件包管理器的新版本 查看更多\n网络配置的方法 展开\n备份您的文件。结束。",
        "bullet_line_share": "\n".join("• " + line for line in lines(SIMPLIFIED)),
        "num_punctuation": "".join(c for c in SIMPLIFIED if c.isalpha()),
        "unique_unit_share": "安装软件包的方法如下。" * 60,
        "unit_entropy": "哈哈哈哈嘿嘿嘿嘿。" * 12,
        "lorem_ipsum": SIMPLIFIED + "Lorem ipsum dolor sit amet.",
        "duplicate_line_char_share": SIMPLIFIED + "返回首页并查看本手册的目录\n" * 12,
        "top_2gram_share": SIMPLIFIED + "特价的" * 60,
        "top_3gram_share": SIMPLIFIED + "买特价的" * 60,
        "top_4gram_share": SIMPLIFIED + "买特价鞋的" * 60,
        **{f"duplicate_{n}gram_share": SIMPLIFIED * 3 for n in range(8, 11)},
    },
}

EN = BAD["matrix-en"]
CLEAN_FOR = {
    "redpajama-v2-en": LONGER,
    "code": CODE,
    "books": BOOK,
}  # where the page of the language is not what is meant
PRESETS = {
    "gopher": {},
    "c4": {
        "stop_line_share": " ".join(WORDS),
        "javascript_line_share": "Please switch on JavaScript to see this page.\n" * 3,
        "policy_line_share": "We use cookies. Read our privacy policy.\n" * 3,
        "max_unit_chars": ENGLISH + "QmFzZTY0" * 200,
    },
    "fineweb-like": {
        "stop_line_share": " ".join(WORDS),
        "short_line_share": ENGLISH + "\n".join(WORDS[:40]),
        "lines_per_unit": "\n".join(WORDS),
    },
    "code": {
        "max_line_chars": CODE + "x = [" + "1, " * 500 + "]",
        "mean_line_chars": "\n".join("values = [" + "one, two, " * 12 + "]" for _ in range(9)),
        "alphanumeric_share": CODE + "+-|=*/" * 300,
        "alphabetic_share": CODE + "0x00, 0x17, " * 200,
        "max_unit_chars": CODE + "QmFzZTY0" * 200,
        "num_units": "pass",
        "duplicate_line_char_share": "    case default: return nothing_at_all;\n" * 40,
    },
    "books": {
        "num_chars": ENGLISH,
        "letterless_share": BOOK + "1 2 3 | " * 5000,
        "mean_unit_chars": BOOK + ("Rindfleischetikettierungsgesetz" * 2 + " ") * 5000,
        "alphabetic_share": BOOK + "1 2 3 | " * 5000,
        "ellipsis_ratio": "... ".join(BOOK.split()),
        "duplicate_line_char_share": BOOK + "THE HISTORY OF THE PACKAGE MANAGER\n" * 1000,
        "duplicate_10gram_share": BOOK * 2,
    },
    "redpajama-v2-en": {
        "num_units": "word " * 10_001,
        "stop_word_share": " ".join(w for w in WORDS if len(w) > 4),
        "symbol_ratio": "# one two #three #four #five",
        "num_chars": ENGLISH,
        "num_lines": " ".join(LONGER.split()),
        "num_sentences": "a b. " * 7501,
        "unique_unit_share": "word",
        "unit_entropy": " ".join(f"word{n}" for n in range(500)),
        "meta.ccnet_perplexity": (LONGER, 487.75),
        "meta.rps_doc_books_importance": (LONGER, -25001),
        "meta.rps_doc_openwebtext_importance": (LONGER, -1001),
        "meta.rps_doc_ml_wikiref_score": (LONGER, 0.02),
    },
    "matrix-en-as-released": {
        "released_mean_word_chars": EN["mean_unit_chars"],
        "released_ellipses_per_char": "a.. b.. " * 90,
        "released_bullet_lines": "\n".join("• " + " ".join(WORDS[n : n + 6]) for n in range(0, len(WORDS), 6)),
        "released_letterless_per_char": "1 2 3 4 " * 90,
        "released_symbols_per_word": "# # #one ",
        "released_num_words": EN["num_units"],
        "released_lang_score": EN["lang_score"],
        "released_num_chars": EN["num_chars"],
        "released_num_lines": "",
        "released_curly_per_char": EN["curly_share"],
        "released_lorem_ipsum_per_char": EN["lorem_ipsum"],
        "released_greedy_sentences": "a b. " * 7500,
        "released_all_caps": EN["all_caps_share"],
        "released_unique_words": EN["unique_unit_share"],
        "released_num_sentences": " ".join(WORDS),
        "released_read_more": "News of today. Come in and read more",
        "released_hashes_per_char": "#a #b #c ",
        "released_ascii_punctuation": " ".join(WORDS),
        "released_nonalphabetic_per_char": "1, 2, 3, 4, ",
        "released_digit_words_per_char": "1 2 3 4 ",
        "released_word_entropy": EN["unit_entropy"],
        **{f"released_top_{n}gram": "ha" * 60 for n in (2, 3, 4)},
        **{f"released_duplicate_{n}gram": "abcdefghijklmnopqrstuvwxyz" * 2 for n in range(5, 11)},
    },
    "matrix-zh-as-released": {
        "released_zh_brackets": BAD["matrix-zh"]["bracket_share"],
        "released_zh_num_sentences": SIMPLIFIED.translate(str.maketrans("。！？“”；", "，，，，，，")),
        "released_zh_num_chars": "请参阅软件包页面。然后继续。",
        "released_hashes_per_char": "#安装#软件" * 30,
        "released_ellipses_per_char": "软件……安装……列表……文件……",
        "released_zh_digits": BAD["matrix-zh"]["digit_share"],
        "released_zh_read_more": BAD["matrix-zh"]["read_more_share"],
        "released_bullet_lines": "\n".join("• " + line for line in lines(SIMPLIFIED)),
        "released_zh_punctuation": BAD["matrix-zh"]["num_punctuation"],
        "released_zh_unique_chars": BAD["matrix-zh"]["unique_unit_share"],
        "released_zh_char_entropy": BAD["matrix-zh"]["unit_entropy"],
        "released_lang_score": BAD["matrix-zh"]["lang_score"],
    },
}
for preset, own in PRESETS.items():
    names = [rule.name for rule in load_policy(preset).rules]
    BAD[preset] = {name: EN[name] for name in names if name in EN} | own

MATRIX_ONLY = {f"duplicate_{n}gram_share" for n in range(6, 11)} | {"duplicate_line_share"}
BAD["manuals-en"] = {rule: text for rule, text in BAD["matrix-en"].items() if rule not in MATRIX_ONLY} | {
    "duplicate_5gram_share": PASSAGE * 4 + ENGLISH
}
ZH = BAD["matrix-zh"]
BAD["manuals-zh"] = ZH | {
    "lang_score": "foo bar(baz); qux la no si ja Lorem tux ipso de 软件 cd ls -l x86 0x1f via &c.",
    "cjk_share": SIMPLIFIED + ENGLISH * 5,
    "duplicate_line_char_share": SIMPLIFIED + "返回首页并查看本手册的目录\n" * 60,
}
BAD["verse-zh"] = {
    "num_chars": "静夜思\n床前明月光。",
    "cjk_share": SIMPLIFIED + ENGLISH,
    "num_punctuation": ZH["num_punctuation"],
    "top_4gram_share": "买特价鞋，" * 60,
    "lorem_ipsum": ZH["lorem_ipsum"],
}


def columns_of(text, policy):
    """What the rules of a policy read of a text, as the annotate step measures it; metadata may come as a value."""
    text, value = text if isinstance(text, tuple) else (text, np.nan)
    array = pa.array([text], pa.large_string())
    columns = {}
    for family in policy.columns_by_family():
        if family in FAMILIES:
            table = measure(array, family)
            columns |= {name: column.to_numpy(zero_copy_only=False) for name, column in table.items()}
    return {name: columns.get(name, np.array([value], np.float32)) for name in policy.signals()}


def objecting(policy, text):
    objections = policy.objections(columns_of(text, policy))[:, 0]
    return [rule.name for rule, against in zip(policy.rules, objections, strict=True) if against]


def test_every_policy_and_every_rule_has_a_bad_example():
    assert set(BAD) == set(policy_names())
    for name, examples in BAD.items():
        assert set(examples) == {rule.name for rule in load_policy(name).rules}


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in BAD.items() for rule in rules])
def test_a_rule_objects_to_its_bad_example(name, rule):
    assert rule in objecting(load_policy(name), BAD[name][rule])


@pytest.mark.parametrize(
    ("name", "language"), [(name, language) for name in BAD for language in load_policy(name).languages]
)
def test_a_clean_page_is_kept_in_each_language_that_a_policy_claims(name, language):
    assert objecting(load_policy(name), CLEAN_FOR.get(name) or CLEAN[language]) == []


@pytest.mark.parametrize("name", BAD)
def test_each_rule_can_be_the_only_one_that_objects(name):
    policy = load_policy(name)
    clean = columns_of(CLEAN_FOR.get(name) or CLEAN[policy.languages[0]], policy)
    for rule in policy.rules:
        for limit, away in ((rule.drop_below, -np.inf), (rule.drop_above, np.inf)):
            if limit is not None:
                beyond = np.array([np.nextafter(np.float32(limit), np.float32(away))], np.float32)
                inside = {signal: np.array([high or low], np.float32) for signal, (low, high) in rule.when.items()}
                objections = policy.objections({**clean, **inside, rule.signal: beyond})[:, 0]
                assert [r.name for r, against in zip(policy.rules, objections, strict=True) if against] == [rule.name]


@pytest.mark.parametrize("name", BAD)
def test_a_value_equal_to_a_limit_is_kept_and_the_next_one_is_dropped(name):
    for rule in load_policy(name).rules:
        inside = {signal: low if low is not None else high for signal, (low, high) in rule.when.items()}
        for limit, away in ((rule.drop_below, -np.inf), (rule.drop_above, np.inf)):
            if limit is not None:
                value = np.array([limit, np.nextafter(np.float32(limit), np.float32(away))], np.float32)
                columns = {s: np.full(2, v, np.float32) for s, v in inside.items()} | {rule.signal: value}
                assert rule.objects(columns).tolist() == [False, True]


def test_a_rule_with_when_leaves_other_documents_alone():
    rule = Rule(signal="num_units", drop_below=5, when={"num_chars": (10, None)}, why="x", source="y")
    columns = {"num_units": np.array([1, 1], np.float32), "num_chars": np.array([9, 10], np.float32)}
    assert rule.objects(columns).tolist() == [False, True]
    assert rule.limits() == "num_units < 5 where num_chars is 10..any"


def test_of_two_patterns_of_sources_the_more_specific_has_the_policy_in_whatever_order(tmp_path):
    stubs, prose = (
        parse_policy(minimal(policy=name, rule={"drop_below": n}), name) for n, name in ((5, "a"), (9, "b"))
    )
    own = (("*", {"en": stubs}), ("news*", {"en": prose}))
    policies = [Policies({"en": stubs}, by_source) for by_source in (own, own[::-1])]
    assert policies[0].deciding() == policies[1].deciding()
    for number, one in enumerate(policies):
        assert one.of("news-1") == {"en": prose}
        assert one.of("blogs") == {"en": stubs}
        one.write(tmp_path / str(number))
        assert stored_policies(tmp_path / str(number), "news-1")["en"]["policy"] == "b"
        assert stored_policies(tmp_path / str(number), "blogs")["en"]["policy"] == "a"


def test_a_policy_reads_only_the_columns_of_its_rules():
    policy = parse_policy(minimal(), "here")
    assert policy.columns_by_family() == {"quality": ["num_units"]}
    objections = policy.objections({"num_units": np.array([1, 50, 99], np.float32)})
    assert objections.tolist() == [[True, False, False]]


def minimal(**changes):
    rule = {"signal": "num_units", "drop_below": 50, "why": "stubs", "source": "ours"}
    return {
        "policy": "p",
        "languages": ["en"],
        "about": "a",
        "source": "s",
        "rules": [{**rule, **changes.pop("rule", {})}],
        **changes,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            minimal(rule={"drop_abvoe": 3}),
            "unknown key 'drop_abvoe' in rule 1 of policy here.*'drop_above'",
        ),
        (minimal(rule={"signal": "num_unit"}), "unknown signal 'num_unit'.*did you mean 'num_units'"),
        (minimal(rule={"drop_below": "many"}), "drop_below in rule 1 of policy here is 'many'.*a number"),
        (minimal(rule={"drop_below": True}), "must be a number"),
        (minimal(rule={"drop_below": float("nan")}), "must be a number"),
        (minimal(rule={"when": {5: [1, 2]}}), "unknown signal '5'"),
        (minimal(rule={"drop_above": 3}), "every document"),
        (minimal(rule={"when": {"num_chars": 5}}), r"\[lowest, highest\]"),
        (minimal(rule={"why": ""}), "set why and source"),
        (minimal(rule={"why": 3}), "must be a text"),
        (minimal(rules=[]), "has no rules"),
        (minimal(rules={"a": 1}), "must be a list"),
        (minimal(rules=[{"signal": "num_units", "why": "w", "source": "s"}]), "neither drop_below nor drop_above"),
        (minimal(rules=[{"drop_below": 1}]), "lacks the key 'signal'"),
        (minimal(rules=minimal()["rules"] * 2), "two rules called 'num_units'"),
        (minimal(langauges=["en"]), "unknown key 'langauges'.*did you mean 'languages'"),
        (minimal(languages="en"), "languages in policy here is 'en'.*list"),
        ([1], "instead of a mapping"),
    ],
)
def test_a_faulty_policy_is_refused_with_the_place_and_the_remedy(content, message):
    with pytest.raises(ConfigError, match=message):
        parse_policy(content, "here")


def test_policies_come_by_name_or_from_a_file_beside_the_recipe(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(minimal()), encoding="utf-8")
    assert load_policy("mine.yaml", tmp_path).rules[0].drop_below == 50
    with pytest.raises(ConfigError, match="did you mean 'matrix-en'"):
        load_policy("matrix-eng")
    with pytest.raises(ConfigError, match="no policy file"):
        load_policy("other.yaml", tmp_path)
    (tmp_path / "bad.yaml").write_text("rules: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_policy("bad.yaml", tmp_path)


def test_explanations_do_not_decide_and_limits_do():
    policy = load_policy("matrix-en")
    reworded = [dataclasses.replace(rule, why="other words") for rule in policy.rules]
    assert dataclasses.replace(policy, about="x", rules=tuple(reworded)).deciding() == policy.deciding()
    first = dataclasses.replace(policy.rules[0], drop_below=51)
    assert dataclasses.replace(policy, rules=(first, *policy.rules[1:])).deciding() != policy.deciding()
