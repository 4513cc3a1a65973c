"""What counts as the same text for exact deduplication."""

from __future__ import annotations

import unicodedata

import xxhash


def normalized(text: str) -> str:
    """Canonical composition (NFC), and every run of white space one space, none at the ends. Case and marks stay."""
    return " ".join((text if text.isascii() else unicodedata.normalize("NFC", text)).split())


def content_hash(text: str) -> int:
    """xxh3-128 of the normalised text."""
    return xxhash.xxh3_128_intdigest(normalized(text).encode())
