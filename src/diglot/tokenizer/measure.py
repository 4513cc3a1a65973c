"""How well a vocabulary fits a language: characters, bytes and text units per token, and how much falls back to bytes.

Fertility is tokens per text unit (`diglot.text.units`: a white-space word, or one CJK character), 1 at best for a
language of words; the literature's figures for Chinese count dictionary words and are about 1.5 times as large. Units
of two languages are not alike; sentences with one meaning are. On parallel sentences the tokens of one language divided
by those of another say what the same meaning costs: 1 is parity (Petrov et al. 2023, arXiv 2305.15425).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diglot.tokenizer.vocabulary import FIRST_BYTE, FIRST_PIECE, SPECIAL_TOKENS, Vocabulary

Encode = Callable[[Sequence[str]], Sequence[Sequence[int]]]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Sums over the documents of one language."""

    num_documents: int
    num_bytes: int
    num_chars: int
    num_units: int
    num_tokens: int
    num_byte_tokens: int  # tokens that write one byte of a character that is no piece

    def to_dict(self) -> dict[str, Any]:
        """The sums and their ratios; a ratio is None where there is nothing to divide by."""
        return asdict(self) | {
            "chars_per_token": _ratio(self.num_chars, self.num_tokens),
            "bytes_per_token": _ratio(self.num_bytes, self.num_tokens),
            "tokens_per_unit": _ratio(self.num_tokens, self.num_units),
            "byte_fallback_share": _ratio(self.num_byte_tokens, self.num_tokens),
        }


def total(fits: Sequence[Fit]) -> Fit:
    """The fit over all documents of several."""
    return Fit(**{one.name: sum(getattr(found, one.name) for found in fits) for one in fields(Fit)})


def fit(texts: Sequence[str], encoded: Sequence[Sequence[int]]) -> Fit:
    """Measure texts whose tokens are given."""
    tokens = _flat(encoded)
    return Fit(
        num_documents=len(texts),
        num_bytes=sum(len(text.encode()) for text in texts),
        num_chars=sum(map(len, texts)),
        num_units=sum(map(count_units, texts)),
        num_tokens=len(tokens),
        num_byte_tokens=int(((tokens >= FIRST_BYTE) & (tokens < FIRST_PIECE)).sum()),
    )


def count_units(text: str) -> int:
    """`len(units(text))`, by the compiled scanner."""
    from diglot.kernels.jit import classes
    from diglot.kernels.units import scan_units

    utf8 = np.frombuffer(text.encode(), np.uint8)
    hashes, lengths = np.empty(len(utf8), np.uint64), np.empty(len(utf8), np.int32)
    return int(scan_units(utf8, 0, len(utf8), classes(), hashes, lengths))


def parallel_fit(sentences: Mapping[str, Sequence[str]], encode: Encode) -> dict[str, dict[str, Any]]:
    """What the same sentences cost in each language.

    Returns: for each language its numbers of sentences and tokens, `tokens_per_sentence`, and `tokens_against`: its
        tokens divided by those of every other language.
    """
    num_tokens = {lang: sum(map(len, encode(texts))) for lang, texts in sentences.items()}
    return {
        lang: {
            "num_sentences": len(texts),
            "num_tokens": num_tokens[lang],
            "tokens_per_sentence": _ratio(num_tokens[lang], len(texts)),
            "tokens_against": {
                other: _ratio(num_tokens[lang], count) for other, count in num_tokens.items() if other != lang
            },
        }
        for lang, texts in sentences.items()
    }


def token_counts(encoded: Sequence[Sequence[int]], vocab_size: int) -> NDArray[np.int64]:
    """How often each token occurs in some encoded texts, [vocab_size]."""
    return np.bincount(_flat(encoded), minlength=vocab_size)


def unused_pieces(vocabulary: Vocabulary, counts: NDArray[np.int64]) -> list[str]:
    """Pieces that no text needed, in id order: most are steps on the way to a longer piece."""
    return [piece for piece, count in zip(vocabulary.pieces, counts[FIRST_PIECE:], strict=True) if not count]


def vocabulary_by_script(vocabulary: Vocabulary) -> dict[str, float]:
    """Share of the vocabulary by script, largest first; special tokens and bytes are classes of their own."""
    found = Counter(map(script_of, vocabulary.pieces))
    found.update({"special": len(SPECIAL_TOKENS), "byte": FIRST_PIECE - FIRST_BYTE})
    return {
        script: count / len(vocabulary) for script, count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    }


def script_of(piece: str) -> str:
    """`Latin`, `Han`, `Cyrillic` ...: the script of a piece's first letter; else `digit`, `space` or `punctuation`.

    Full-width and other compatibility letters count as what they stand for.
    """
    for character in unicodedata.normalize("NFKC", piece):
        if character.isalpha():
            script = unicodedata.name(character, "unnamed").split()[0]
            return "Han" if script == "CJK" else script.capitalize()
    if piece.isspace():
        return "space"
    return "digit" if piece.strip().isdigit() else "punctuation"


def _ratio(above: int, below: int) -> float | None:
    return round(above / below, 4) if below else None


def _flat(encoded: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """The tokens of all texts, one after the other."""
    return np.concatenate([np.asarray(ids, np.int64) for ids in encoded]) if len(encoded) else np.empty(0, np.int64)
