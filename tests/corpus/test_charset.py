"""Bytes to text: legacy encodings with right, wrong and missing labels, and damaged bytes."""

from __future__ import annotations

import base64
import io
import json

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from diglot.corpus.charset import Decoded, decode, label_in

CHINESE = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"
TRADITIONAL = "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神互相對待。"
JAPANESE = "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。"
KOREAN = (
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 부여받았다."
)
RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью."
GREEK = "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα."
FRENCH = "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison."

LEGACY = [
    (CHINESE, "gb18030"),
    (CHINESE, "gb2312"),
    (TRADITIONAL, "big5"),
    (JAPANESE, "shift_jis"),
    (JAPANESE, "euc_jp"),
    (KOREAN, "euc_kr"),
    (RUSSIAN, "windows-1251"),
    (RUSSIAN, "koi8-r"),
    (GREEK, "iso-8859-7"),
    (FRENCH, "iso-8859-1"),
]
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize(("text", "encoding"), LEGACY)
def test_legacy_encodings_are_read_with_their_label_and_without_any(text, encoding):
    assert decode(text.encode(encoding), encoding).text == text
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize(("text", "encoding"), LEGACY)
def test_a_page_that_claims_to_be_utf8_and_is_not_is_read_all_the_same(text, encoding):
    page = f'<html><head><meta charset="utf-8"><title>{text}</title></head><body>{text}</body></html>'
    assert decode(page.encode(encoding)).text == page


@pytest.mark.parametrize(("text", "encoding"), [case for case in LEGACY if case[0] != FRENCH])
def test_the_label_latin1_does_not_hide_another_script(text, encoding):
    assert decode(text.encode(encoding), "iso-8859-1").text == text


@pytest.mark.parametrize(("text", "encoding"), [case for case in LEGACY if case[1] in ("big5", "shift_jis", "euc_jp")])
def test_the_label_of_another_multibyte_encoding_is_overruled(text, encoding):
    assert decode(text.encode(encoding), "gb2312").text == text


@pytest.mark.parametrize("label", [None, "utf-8", "gb2312", "iso-8859-1", "no such encoding"])
@pytest.mark.parametrize("encoding", UNICODE)
def test_valid_unicode_is_unicode_whatever_the_label_says(encoding, label):
    assert decode(CHINESE.encode(encoding), label).text == CHINESE


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_is_seen_by_its_zeros(encoding):
    page = f"<html><body><p>{CHINESE}</p></body></html>" * 3
    assert decode(page.encode(encoding)) == Decoded(page, encoding)


def test_the_latin1_label_is_read_as_browsers_do():
    assert decode("“naïve” – 5 €".encode("cp1252"), "ISO-8859-1").text == "“naïve” – 5 €"


def test_iso2022_jp_is_read_when_it_is_declared_and_plain_ascii_is_not_taken_for_it():
    assert decode(JAPANESE.encode("iso2022_jp"), "iso-2022-jp").text == JAPANESE
    assert decode(b"plain", "iso-2022-jp") == Decoded("plain", "utf-8")


def test_a_few_bad_bytes_in_utf8_are_counted_and_replaced_and_the_rest_is_kept():
    data = CHINESE.encode() + b"\xff\xfe" + CHINESE.encode()
    assert decode(data) == Decoded(CHINESE + "\ufffd\ufffd" + CHINESE, "utf-8", 2)


def test_undecodable_bytes_of_a_legacy_encoding_are_counted():
    decoded = decode(CHINESE.encode("gb18030") + b"\xff" + CHINESE.encode("gb18030"), "gb18030")
    assert decoded == Decoded(CHINESE + "\ufffd" + CHINESE, "gb18030", 1)


@pytest.mark.parametrize(
    ("page", "label"),
    [
        (b'<html><meta charset="GBK">', "GBK"),
        (b'<META http-equiv=Content-Type content="text/html; charset=big5">', "big5"),
        (b'<?xml version="1.0" encoding="EUC-JP"?><html>', "EUC-JP"),
        (b"<html><body>charset=gbk", None),
    ],
)
def test_the_label_inside_a_page_is_found(page, label):
    assert label_in(page) == label


@given(st.binary(max_size=300), st.sampled_from([None, "utf-8", "gb2312", "utf-16", "shift_jis", "x", "utf-7", "hex"]))
def test_any_bytes_with_any_label_give_text_that_can_be_stored(data, label):
    decode(data, label).text.encode()


@given(st.text(max_size=200))
def test_every_text_survives_utf8(text):
    text = text.encode(errors="ignore").decode().lstrip("\ufeff")
    if "\0" not in text:  # zeros in every second byte would be UTF-16
        assert decode(text.encode()).text == text


# What the file names of the collection call an encoding, and what the bytes are: the files called Latin2 have letters
# (Š at 0x8a) where ISO 8859-2 has control characters. The other names in it are fonts and typing conventions.
DECLARED = {
    "Latin1": ("iso-8859-1", "cp1252"),
    "Latin2": ("iso-8859-2", "cp1250"),
    "GB2312": ("gb2312", "gb18030"),
    "SJIS": ("shift_jis", "cp932"),
    "EUC": ("euc-jp", "euc_jp"),
    "Greek": ("iso-8859-7", "iso-8859-7"),
    "Turkish": ("iso-8859-9", "cp1254"),
    "Hebrew": ("iso-8859-8", "iso-8859-8"),
    "Arabic": ("windows-1256", "cp1256"),
    "UTF8": ("utf-8", "utf-8"),
}


def test_declarations_of_human_rights_in_legacy_encodings_are_read(shared):
    """With a label, if need be against it; and without any. The cut through a character at 10,000 bytes is left out."""
    path = shared / "pretrain" / "other" / "udhr_raw_encodings.jsonl.zst"
    with path.open("rb") as stream:
        rows = [json.loads(line) for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream))]
    labelled = unlabelled = num_rows = 0
    for row in rows:
        if row["encoding"] in DECLARED:
            data, (label, codec) = base64.b64decode(row["bytes_b64"]), DECLARED[row["encoding"]]
            expected = data.decode(codec, "replace").removeprefix("\ufeff").rstrip("\ufffd")
            num_rows += 1
            labelled += decode(data, label).text.rstrip("\ufffd") == expected
            unlabelled += decode(data).text.rstrip("\ufffd") == expected
    assert num_rows > 150
    assert labelled >= num_rows - 2, (labelled, num_rows)
    assert unlabelled / num_rows > 0.95, (unlabelled, num_rows)
