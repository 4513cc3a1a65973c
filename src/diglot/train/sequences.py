"""The geometry of fixed-length sequences in a stream of tokens.

Sequence k of a stream covers tokens k*T .. k*T + T: T inputs and, one further, T targets. Sequences share one token,
which is a target of the one and an input of the next, so no target is read twice. What does not fill a last sequence
is left unused, unless it is all there is.
"""

from __future__ import annotations


def num_sequences(num_tokens: int, sequence_length: int) -> int:
    """How many sequences a stream holds; 1, to be padded, when it is shorter than one; 0 without a single target."""
    return max((num_tokens - 1) // sequence_length, 1 if num_tokens >= 2 else 0)


def num_unused_tokens(num_tokens: int, sequence_length: int) -> int:
    """Tokens at a stream's end that are neither an input nor a target."""
    count = num_sequences(num_tokens, sequence_length)
    return max(0, num_tokens - 1 - count * sequence_length) if count else num_tokens
