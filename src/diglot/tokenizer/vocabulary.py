"""The vocabulary: what each token id stands for, and which pieces may be joined first.

Ids, in this order: special tokens, the 256 bytes, joined pieces in the order in which training found them, single
characters, layout pieces. A byte token writes one byte of a character that is no piece, so every text has an encoding.

A piece is the text that it stands for: a space is a space. SentencePiece writes spaces as U+2581 and therefore cannot
tell a real U+2581 from a space; here its model is rewritten with real spaces and `escape_whitespaces` off, which its
own library reads as well, and U+2581 goes through bytes like any rare character.

Encoding joins, again and again, the two neighbours whose joined piece has the smallest id, the leftmost pair of equals,
until no two neighbours form a piece: byte-pair encoding as SentencePiece's run time does it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diglot.core.errors import InputError

UNK, BOS, EOS, PAD = "<unk>", "<s>", "</s>", "<pad>"
SPECIAL_TOKENS = (UNK, BOS, EOS, PAD, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
NUM_BYTES = 256
FIRST_BYTE = len(SPECIAL_TOKENS)
FIRST_PIECE = FIRST_BYTE + NUM_BYTES

# Indentation and line ends must not cost one token per character, also where the training text had none of them. They
# come last: a learned piece such as " the" takes its space before a run of spaces is formed.
LAYOUT_PIECES = (
    "\t",
    "\n",
    "\r",
    "\t\t",
    "\n\n",
    "\r\n",
    "\n\n\n",
    "\r\n\r\n",
    " ",
    " " * 2,
    " " * 4,
    " " * 8,
    " " * 16,
)


@dataclass(frozen=True)
class Vocabulary:
    """`pieces`: texts of the tokens from FIRST_PIECE on. Raises InputError when one is there twice or out of reach."""

    pieces: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.pieces)) != len(self.pieces):
            twice = next(piece for i, piece in enumerate(self.pieces) if piece in self.pieces[:i])
            raise InputError(f"the piece {twice!r} is twice in the vocabulary. Train the tokenizer again.")
        known = set(self.pieces)
        lost = [
            piece
            for piece in self.pieces
            if len(piece) > 1 and not any(piece[:cut] in known and piece[cut:] in known for cut in range(1, len(piece)))
        ]
        if lost:
            raise InputError(
                f"no two pieces form {sorted(lost)[0]!r}, so it can never be used. Train the tokenizer again."
            )

    def __len__(self) -> int:
        return FIRST_PIECE + len(self.pieces)

    def joins(self) -> list[tuple[str, str, str]]:
        """(left, right, left + right) for every two pieces that form a third, in the order of joining."""
        known = set(self.pieces)
        return [
            (piece[:cut], piece[cut:], piece)
            for piece in self.pieces
            for cut in range(1, len(piece))
            if piece[:cut] in known and piece[cut:] in known
        ]

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The token of each piece."""
        return {piece: FIRST_PIECE + number for number, piece in enumerate(self.pieces)}

    @functools.cached_property
    def neighbours(self) -> frozenset[tuple[str, str]]:
        """Characters that stand side by side in a piece. Between any two others a text can be cut without effect."""
        return frozenset(pair for piece in self.pieces for pair in itertools.pairwise(piece))

    def spelling(self, token: int) -> str:
        """The name of a token in files: `<s>`, `<0x0A>`, or the piece itself."""
        if token < FIRST_BYTE:
            return SPECIAL_TOKENS[token]
        return byte_name(token - FIRST_BYTE) if token < FIRST_PIECE else self.pieces[token - FIRST_PIECE]

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The UTF-8 bytes that each token stands for; none for special tokens."""
        single = tuple(bytes([value]) for value in range(NUM_BYTES))
        return (b"",) * FIRST_BYTE + single + tuple(piece.encode() for piece in self.pieces)


def encode_oracle(text: str, ids: Mapping[str, int], first_byte: int = FIRST_BYTE) -> list[int]:
    """The tokens of a text: the definition, for `diglot.kernels.bpe` to equal.

    Joins the two neighbours that form the piece with the smallest id, the leftmost of equals, until no two form one.
    A character that is no piece becomes the tokens of its bytes; so does a byte that is no UTF-8 and came in by
    `surrogateescape`.
    """
    parts = list(text)
    while pairs := [(ids[a + b], at) for at, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in ids]:
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    tokens: list[int] = []
    for part in parts:
        if part in ids:
            tokens.append(ids[part])
        else:
            tokens.extend(first_byte + value for value in part.encode(errors="surrogateescape"))
    return tokens


def byte_name(value: int) -> str:
    """`<0x0A>`. No text can be mistaken for it: digits are never joined, so `<0x0A>` is no piece."""
    return f"<0x{value:02X}>"


def with_layout(learned: Sequence[str]) -> tuple[str, ...]:
    """The learned pieces with the missing LAYOUT_PIECES behind them, and as many fewer of the others joined last.

    learned: joined pieces in order of joining, then single characters. Leaving out the last ones joined is the same as
        stopping the training that much earlier.
    """
    layout = set(LAYOUT_PIECES)
    missing = tuple(piece for piece in LAYOUT_PIECES if piece not in set(learned))
    others = [piece for piece in learned if len(piece) > 1 and piece not in layout]
    left_out = set(others[max(0, len(others) - len(missing)) :])
    return (*(piece for piece in learned if piece not in left_out), *missing)
