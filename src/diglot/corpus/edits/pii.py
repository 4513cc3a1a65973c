"""Finds personal data and replaces it by a placeholder of its kind: <email>, <phone>, <ip>, <cn_id>, <card>, <ssn>.

What can be checked is checked, because prose is full of numbers: identity numbers by birth date and check digit (GB
11643-1999), cards by issuer, length and Luhn's digit, addresses by their ranges. What names nobody stays:

- e-mail addresses of the domains reserved for examples (RFC 2606), `git@host:path`, names of files such as `x@2x.png`;
- IP addresses that are not public, those of a documentation range, and dotted numbers that are no address but a
  version or the number of a section: after a word for version, inside a longer token, or with no part above 31;
- service numbers (400, 800) and telephone numbers without a country code, an area code in brackets or a known form.

Names and postal addresses are not looked for: that needs a model, and `cn_id` and `ssn` are the forms of two countries.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

from diglot.corpus.edits import PII
from diglot.corpus.edits.settings import PiiEdit
from diglot.corpus.edits.spans import Span
from diglot.corpus.edits.texts import Texts

MIN_DIGITS = 7  # of a run that is looked at: fewer are no number of any kind, except an IP address
DIGITS, DIGIT_SIGNS = b"0123456789", b" +-.()"
HEX = b"0123456789abcdefABCDEF"
MIN_IP_DIGITS = 4

DOMAIN = re.compile(rb"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24})(?![A-Za-z0-9])")
LOCAL = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")
MAX_LOCAL = 64
RESERVED = re.compile(rb"(?:^|\.)(?:example\.(?:com|org|net)|example|test|invalid|localhost|local)$", re.IGNORECASE)
TOKEN_END = re.compile(rb"[\s\x80-\xff,;]")
FILE_SUFFIXES = frozenset(  # none of a country: .rs, .py and .md are addresses more often
    b"png jpg jpeg gif svg webp ico bmp js mjs ts tsx jsx css html htm rb go java cpp json yaml yml toml txt "
    b"pdf gz tar xml csv service socket target".split()
)

BEFORE, AFTER = rb"(?<![\d+-])(?<!\d\.)", rb"(?![\d-]|\.\d)"  # not inside a longer number
AREA = rb"(?!8(?:00|33|44|55|66|77|88))[2-9]\d{2}"  # North America, without toll-free numbers
PHONES = tuple(
    re.compile(pattern)
    for pattern in (
        # +86 138 0013 8000, +1 (212) 555-0142, but not +2024-12-06
        rb"(?<!\d)(?<!\d\.)\+(?!\d{4}-\d\d-\d\d\b)\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,5}(?!\d)",
        BEFORE + rb"1[3-9]\d(?:\d{8}|[ -]\d{4}[ -]\d{4})" + AFTER,  # mobile, China
        BEFORE + rb"0(?:10|2\d|[3-9]\d{2})-\d{7,8}" + AFTER,  # with area code, China
        BEFORE + rb"\(0(?:10|2\d|[3-9]\d{2})\) ?\d{7,8}" + AFTER,
        BEFORE + rb"\(" + AREA + rb"\) ?[2-9]\d{2}-\d{4}" + AFTER,  # North America
        BEFORE + rb"(?:1-)?(?!400-)" + AREA + rb"-[2-9]\d{2}-\d{4}" + AFTER,  # 400- is a service number in China
        BEFORE + AREA + rb"\.[2-9]\d{2}\.\d{4}" + AFTER,
    )
)
PHONE_DIGITS = range(8, 16)  # of an international number, country code included (E.164)
CARD = re.compile(rb"(?<![\d-])(?<!\d\.)\d(?:[ -]?\d){12,18}(?![\d-]|\.\d)")
CN_ID = re.compile(rb"(?<![\d-])(?<!\d\.)\d{17}[\dXx](?![\dA-Za-z-]|\.\d)")
CN_ID_WEIGHTS, CN_ID_CHECK = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2), b"10X98765432"
CN_PROVINCES = frozenset(
    b"11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83".split()
)
SSN = re.compile(rb"(?<![\d+-])(?<!\d\.)(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-]|\.\d)")
IPV4 = re.compile(rb"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d])")
VERSION = re.compile(
    rb"(?:(?<![A-Za-z])(?:version|ver\.?|release|revision|build|v)|\xe7\x89\x88\xe6\x9c\xac)[ :=\xc2\xa0]*$",
    re.IGNORECASE,
)
LARGEST_SECTION = 31  # in 4.1.12.3 no number is larger; one of 4,096 addresses looks like it


def pii(texts: Texts, edit: PiiEdit) -> Iterator[tuple[int, list[Span]]]:
    """(row, spans) of every document with personal data, in the order of `settings.PII_KINDS` where kinds overlap."""
    found: dict[int, list[tuple[int, Span]]] = {}

    def add(row: int, kind: str, start: int, stop: int) -> None:
        rank = RANKS.index(kind)
        found.setdefault(row, []).append((rank, Span(start, stop, f"{PII}/{kind}", f"<{kind}>")))

    if "email" in edit.kinds:
        for row, text in enumerate(texts):
            for start, stop in emails(text):
                add(row, "email", start, stop)
    numbers = [kind for kind in edit.kinds if kind in NUMBERS]
    if numbers:
        # The last digit of an identity number may be an X, and a bracket of Chinese text stands before a number.
        for row, start, stop in _runs(texts, DIGIT_SIGNS + b"Xx", DIGITS, MIN_IP_DIGITS):
            text, begin = _surroundings(texts, row, start, stop)
            for kind in numbers:
                if (text.count(b".") < 3) if kind == "ip" else (stop - start < MIN_DIGITS):
                    continue
                for at, end in NUMBERS[kind](text, start - begin, stop - begin):
                    add(row, kind, begin + at, begin + end)
    if "ip" in edit.kinds:
        for row, start, stop in _runs(texts, HEX, b":", 2):
            text, begin = _surroundings(texts, row, start, stop)
            for at, end in ipv6_addresses(text, start - begin, stop - begin):
                add(row, "ip", begin + at, begin + end)
    for row, spans in sorted(found.items()):
        yield row, [span for _, span in sorted(spans)]


def emails(text: bytes) -> Iterator[tuple[int, int]]:
    """E-mail addresses that may belong to somebody; see the module for what stays."""
    at = text.find(b"@")
    while at >= 0:
        start = at
        while start > 0 and at - start < MAX_LOCAL and text[start - 1] in LOCAL:
            start -= 1
        while start < at and text[start] in b".-+%":
            start += 1
        match = DOMAIN.match(text, at)
        if match and start < at and text[at - 1 : at] != b"." and not _is_no_mailbox(text, start, match):
            yield start, match.end()
        at = text.find(b"@", at + 1)


def _is_no_mailbox(text: bytes, start: int, domain: re.Match[bytes]) -> bool:
    after = text[domain.end() : domain.end() + 2]
    # what stands before in the same token; Chinese marks end one as well as white space
    token = TOKEN_END.split(text[max(start - MAX_LOCAL, 0) : start])[-1]
    return (
        RESERVED.search(domain[1]) is not None
        or domain[1].rpartition(b".")[2].lower() in FILE_SUFFIXES
        or b"://" in token  # ssh://git@host, https://user:password@host
        or (after[:1] == b":" and after[1:].strip() != b"")  # git@host:path
    )


def phones(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Telephone numbers in text[start:stop]: international, of China and of North America."""
    for number, pattern in enumerate(PHONES):
        for match in pattern.finditer(text, start, stop):
            if _stands_alone(text, match) and (number or sum(c in DIGITS for c in match[0]) in PHONE_DIGITS):
                yield match.span()


def cards(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Payment cards: 13 to 19 digits with an issuer's beginning, its length and a right last digit."""
    for match in CARD.finditer(text, start, stop):
        digits = match[0].replace(b" ", b"").replace(b"-", b"")
        if _has_issuer(digits) and luhn(digits) and _stands_alone(text, match) and _is_grouped(match[0]):
            yield match.span()


def luhn(digits: bytes) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1)."""
    values = [digit - 48 for digit in reversed(digits)]
    return sum(values[::2]) % 10 == -sum(sum(divmod(2 * value, 10)) for value in values[1::2]) % 10


def _has_issuer(digits: bytes) -> bool:
    two, four, length = int(digits[:2]), int(digits[:4]), len(digits)
    return (
        (digits[:1] == b"4" and length in (13, 16, 19))  # Visa
        or ((51 <= two <= 55 or 2221 <= four <= 2720) and length == 16)  # Mastercard
        or (two in (34, 37) and length == 15)  # American Express
        or ((four == 6011 or two == 65) and length in (16, 19))  # Discover
        or (two == 62 and 16 <= length <= 19)  # UnionPay
        or (3528 <= four <= 3589 and length == 16)  # JCB
    )


def _is_grouped(digits: bytes) -> bool:
    """One run of digits, or groups as they are printed on cards: a row of a table is neither."""
    groups = re.split(rb"[ -]", digits)
    return len(groups) == 1 or (
        len(set(digits) & set(b" -")) == 1 and len(groups[0]) == 4 and min(map(len, groups)) > 1
    )


def cn_ids(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Chinese resident identity numbers of 18 places."""
    for match in CN_ID.finditer(text, start, stop):
        if is_cn_id(match[0]) and _stands_alone(text, match):
            yield match.span()


def is_cn_id(number: bytes) -> bool:
    """Province, a possible date of birth and the check digit of GB 11643-1999 (ISO 7064, mod 11-2)."""
    total = sum(weight * (digit - 48) for weight, digit in zip(CN_ID_WEIGHTS, number, strict=False))
    if number[:2] not in CN_PROVINCES or CN_ID_CHECK[total % 11] != number.upper()[17]:
        return False
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    return 1900 <= born.year <= 2099


def ssns(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Social security numbers of the United States, written with hyphens."""
    return (match.span() for match in SSN.finditer(text, start, stop) if _stands_alone(text, match))


def ipv4_addresses(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Public IPv4 addresses that are no version and no section number."""
    for match in IPV4.finditer(text, start, stop):
        after = text[match.end() : match.end() + 2]
        parts = [int(part) for part in match[0].split(b".")]
        if (
            max(parts) > LARGEST_SECTION
            and max(parts) < 256
            and not any(part.startswith(b"0") and len(part) > 1 for part in match[0].split(b"."))
            and not (after[:1] in (b".", b"-") and after[1:].isalnum())
            and _stands_alone(text, match)
            and VERSION.search(text[max(match.start() - 12, 0) : match.start()]) is None
            and ipaddress.IPv4Address(match[0].decode()).is_global
        ):
            yield match.span()


def ipv6_addresses(text: bytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Public IPv6 addresses (2000::/3) in a run of hexadecimal digits and colons: no `std::` and no clock time."""
    while start < stop and text[stop - 1] in b":":
        stop -= 1
    around = text[max(start - 1, 0) : start] + text[stop : stop + 1]
    if re.search(rb"[\w.-]", around) or not re.match(rb"[23][0-9a-fA-F]{3}:", text[start:stop]):
        return
    try:
        address = ipaddress.IPv6Address(text[start:stop].decode())
    except ValueError:
        return
    if address.is_global:
        yield start, stop


RANKS = ("email", "cn_id", "card", "ssn", "ip", "phone")  # what is checked more strictly gets the bytes
NUMBERS = {"phone": phones, "card": cards, "cn_id": cn_ids, "ssn": ssns, "ip": ipv4_addresses}


def _stands_alone(text: bytes, match: re.Match[bytes]) -> bool:
    """No letter, underscore or sign of a longer token touches the number."""
    before, after = text[max(match.start() - 1, 0) : match.start()], text[match.end() : match.end() + 1]
    if before.isalnum() or after.isalnum():
        return False
    if before == b"/" and text[max(match.start() - 2, 0) : match.start() - 1].isdigit():
        before = b""  # two numbers parted by a stroke
    return b"_" not in before + after and before not in (b"/", b"=", b"#", b"$", b"&")


def _runs(texts: Texts, members: bytes, counting: bytes, at_least: int) -> list[list[int]]:
    from diglot.kernels.byte_runs import byte_table, runs

    found: list[list[int]] = runs(texts.offsets, texts.utf8, byte_table(members, counting), at_least).tolist()
    return found


def _surroundings(texts: Texts, row: int, start: int, stop: int) -> tuple[bytes, int]:
    """The bytes around a range, as far as a pattern looks, and where they begin in the document."""
    first = int(texts.offsets[row])
    begin, end = max(start - 16, 0), min(stop + 4, int(texts.offsets[row + 1]) - first)
    content: Any = texts.utf8[first + begin : first + end]
    return content.tobytes(), begin
