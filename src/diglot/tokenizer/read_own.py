"""Read a tokenizer that this project trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diglot.tokenizer.encoder import VocabularyEncoder
from diglot.tokenizer.encoding import Parts
from diglot.tokenizer.vocabulary import (
    BOS,
    EOS,
    FIRST_PIECE,
    NUM_BYTES,
    PAD,
    SPECIAL_TOKENS,
    Vocabulary,
    byte_name,
)

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens.json", "tokenizer.model")
OUR_FIRST = [*SPECIAL_TOKENS, *map(byte_name, range(NUM_BYTES))]


def parts(path: Path, content: dict[str, Any]) -> Parts | None:
    """None when another program wrote the file: its ids do not start as ours, or it splits or changes texts first."""
    model = content.get("model")
    ids = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(ids, dict) or content.get("normalizer") or content.get("pre_tokenizer"):
        return None
    if any(ids.get(spelling) != token for token, spelling in enumerate(OUR_FIRST)):
        return None
    spellings = sorted(ids, key=lambda spelling: ids[spelling])
    vocabulary = Vocabulary(tuple(spellings[FIRST_PIECE:]))
    if [ids[spelling] for spelling in spellings] != list(range(len(ids))):
        return None
    special = {name: token for token, name in enumerate(SPECIAL_TOKENS)}
    return Parts(
        encoder=VocabularyEncoder(vocabulary),
        token_bytes=dict(enumerate(vocabulary.token_bytes)),  # a dict, so that an id of -100 is no valid index
        special_ids=special,
        bos_id=special[BOS],
        eos_id=special[EOS],
        pad_id=special[PAD],
        files=FILES,
        vocabulary=vocabulary,
    )
