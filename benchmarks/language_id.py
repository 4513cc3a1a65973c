"""Does `diglot.text.language` name the language as well as the model under it, and the script of Chinese?

Run:      python -m benchmarks.language_id --data ../shared/data --out language_id.json       (two minutes on one core)
Workload: NTREX-128 (news in 128 varieties): each sentence, and ten sentences joined to a document; the Universal
          Declaration of Human Rights. Only varieties whose language the model knows; those of one language (en-GB,
          es-MX ...) count as that language. `sr`, `hr`, `bs` are told apart, as the model does.
Compared: ours (first 1,600 characters, tags of BCP 47) with fastText lid.176 on the whole text, its own label.
Reports:  macro-F1 over languages, by the script they are written in; share of zh-Hans and zh-Hant told apart;
          texts per CPU second.
"""

from __future__ import annotations

import argparse
import io
import json
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from diglot.core.hardware import host
from diglot.text.language import RENAMED, _model, identify

# ISO 639-3 code -> the label of lid.176; the first part of a variety's name counts.
PAIRS = (
    "afr:af amh:am arb:ar aze:az azj:az bak:ba bel:be ben:bn bod:bo bos:bs bul:bg cat:ca ces:cs ckb:ckb cym:cy "
    "dan:da deu:de div:dv ell:el eng:en est:et eus:eu fas:fa pes:fa fin:fi fra:fr gle:ga glg:gl guj:gu heb:he "
    "hin:hi hrv:hr hun:hu hye:hy ind:id isl:is ita:it jpn:ja kan:kn kat:ka kaz:kk khm:km kir:ky kmr:ku kor:ko "
    "lao:lo lav:lv lit:lt ltz:lb mal:ml mar:mr mkd:mk mlg:mg plt:mg mlt:mt mon:mn khk:mn msa:ms mya:my nep:ne "
    "nld:nl nno:nn nob:no pan:pa pol:pl por:pt pus:ps pbu:ps ron:ro rus:ru sin:si slk:sk slv:sl snd:sd som:so "
    "spa:es sqi:sq srp:sr swa:sw swh:sw swe:sv tam:ta tat:tt tel:te tgk:tg tha:th fil:tl tgl:tl tuk:tk tur:tr "
    "uig:ug ukr:uk urd:ur uzb:uz uzn:uz vie:vi yor:yo yue:yue zho:zh cmn:zh ast:ast bcl:bcl bre:br ceb:ceb "
    "cos:co epo:eo fri:fy gla:gd gug:gn hsb:hsb ido:io ilo:ilo ina:ia jav:jv lat:la mai:mai min:min nds:nds "
    "oss:os pam:pam pnb:pnb sah:sah san:sa sco:sco sun:su tyv:tyv vec:vec vep:vep war:war wln:wa ydd:yi roh:rm"
)
LABELS = dict(pair.split(":") for pair in PAIRS.split())
SCRIPT = {"zho-CN": "zh-Hans", "zho-TW": "zh-Hant", "cmn_hans": "zh-Hans", "cmn_hant": "zh-Hant"}
INDIC = {"DEVANAGARI", "BENGALI", "GUJARATI", "GURMUKHI", "KANNADA", "MALAYALAM", "TAMIL", "TELUGU", "SINHALA"}
EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL"}
SENTENCES_OF_A_DOCUMENT = 10

Item = tuple[str, str]  # name of the variety, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--sentences", type=int, help="of each variety, for a quick look")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name, items in workloads(arguments.data, arguments.sentences).items():
        row: dict[str, Any] = {"texts": name, "num_texts": len(items)}
        for system, predict in (("ours", ours), ("model", model)):
            started = time.process_time()
            found = [predict(text) for _, text in items]
            row[system] = scores(items, found) | {"texts_per_cpu_second": len(items) / (time.process_time() - started)}
        row["chinese_script_right"] = script_share(items)
        rows.append(row)
        for group in row["ours"]["macro_f1"]:
            ours_f1, model_f1 = row["ours"]["macro_f1"][group], row["model"]["macro_f1"][group]
            print(f"{name:<18} {group:<12} ours {ours_f1:.4f}  model {model_f1:.4f}", flush=True)
        speeds = ", ".join(f"{system} {row[system]['texts_per_cpu_second']:,.0f}/s" for system in ("ours", "model"))
        print(f"{name:<18} script of Chinese right {row['chinese_script_right']:.4f}; {speeds}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps({"host": host().to_dict(), "rows": rows}, indent=1))


def workloads(data: Path, limit: int | None) -> dict[str, list[Item]]:
    sentences: dict[str, list[str]] = defaultdict(list)
    for number, record in enumerate(lines(data / "parallel" / "ntrex128_multiway.jsonl.zst")):
        if number == limit:
            break
        for variety, text in record["text"].items():
            if label(variety):
                sentences[variety].append(text)
    documents = [
        (variety, "\n".join(of_variety[i : i + SENTENCES_OF_A_DOCUMENT]))
        for variety, of_variety in sentences.items()
        for i in range(0, len(of_variety), SENTENCES_OF_A_DOCUMENT)
    ]
    declaration = [
        (record["lang"], record["text"])
        for record in lines(data / "pretrain" / "other" / "udhr_genesis_multi.jsonl.zst")
        if record["source"] == "udhr" and label(record["lang"])
    ]
    return {
        "NTREX sentences": [(variety, text) for variety, texts in sentences.items() for text in texts],
        "NTREX documents": documents,
        "UDHR": declaration,
    }


def lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as stream:
        for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), encoding="utf-8"):
            yield json.loads(line)


def label(variety: str) -> str | None:
    """
    >>> label("eng-GB"), label("azj_cyrl"), label("xyz")
    ('en', 'az', None)
    """
    return LABELS.get(variety.replace("_", "-").partition("-")[0])


def ours(text: str) -> str:
    tag = identify(text).tag or "und"
    return "zh" if tag.startswith("zh-") else {new: old for old, new in RENAMED.items()}.get(tag, tag)


def model(text: str) -> str:
    ((_, found),) = _model().predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
    return str(found).removeprefix("__label__")


def scores(items: list[Item], found: list[str]) -> dict[str, Any]:
    """Macro-F1 over the languages of the items, of all and by script."""
    right: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    predicted = Counter(found)
    script: dict[str, Counter[str]] = defaultdict(Counter)
    for (variety, text), guess in zip(items, found, strict=True):
        gold = label(variety)
        assert gold is not None
        expected[gold] += 1
        right[gold] += guess == gold
        script[gold][script_of(text)] += 1
    f1 = {gold: 2 * right[gold] / (expected[gold] + predicted[gold]) for gold in expected}
    groups: dict[str, list[float]] = {"all": list(f1.values())}
    for gold, value in f1.items():
        groups.setdefault(script[gold].most_common(1)[0][0], []).append(value)
    return {"macro_f1": {group: mean(groups[group]) for group in ["all", *sorted(set(groups) - {"all"})]}, "f1": f1}


def script_of(text: str) -> str:
    letters = [character for character in text[:200] if character.isalpha()]
    names = Counter(unicodedata.name(character, "?").split()[0] for character in letters)
    name = names.most_common(1)[0][0] if names else "?"
    return "Indic" if name in INDIC else "East Asian" if name in EAST_ASIAN else name.capitalize()


def script_share(items: list[Item]) -> float:
    answers = [identify(text).tag == SCRIPT[variety] for variety, text in items if variety in SCRIPT]
    return mean([float(answer) for answer in answers])


def mean(values: list[float]) -> float:
    return sum(values) / max(len(values), 1)


if __name__ == "__main__":
    main()
