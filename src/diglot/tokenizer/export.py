"""Write a tokenizer's files: for this project, for Hugging Face libraries and for SentencePiece.

No pre-tokenizer: learned pieces never cross a border that one would cut at, and without it the `tokenizers` library is
about four times as fast as with one regular expression. `tests/tokenizer` holds its ids equal to SentencePiece's.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from diglot.core.storage import write_bytes, write_json, write_text
from diglot.tokenizer.vocabulary import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, Vocabulary

CHAT_TEMPLATE = "chat_template.jinja"


def write_tokenizer(folder: Path, vocabulary: Vocabulary, sentencepiece_model: bytes) -> None:
    """Write tokenizer.model, special_tokens.json, tokenizer_config.json, the template, and tokenizer.json last."""
    write_bytes(folder / "tokenizer.model", sentencepiece_model)
    write_json(folder / "special_tokens.json", {name: index for index, name in enumerate(SPECIAL_TOKENS)})
    write_json(folder / "tokenizer_config.json", hub_config())
    write_chat_template(folder)
    write_text(folder / "tokenizer.json", tokenizer_json(vocabulary))


def write_chat_template(folder: Path) -> None:
    """Put chat_template.jinja where other libraries look for it; `generate.chat` renders the same."""
    write_bytes(folder / CHAT_TEMPLATE, resources.files("diglot.tokenizer").joinpath(CHAT_TEMPLATE).read_bytes())


def tokenizer_json(vocabulary: Vocabulary) -> str:
    """The vocabulary as the `tokenizers` library reads it.

    Every way to form a piece is a merge, so that neighbours join as in SentencePiece, which asks only whether the
    joined text is a piece.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    spellings = {vocabulary.spelling(token): token for token in range(len(vocabulary))}
    merges = [(left, right) for left, right, _ in vocabulary.joins()]
    backend = Tokenizer(models.BPE(vocab=spellings, merges=merges, unk_token=UNK, byte_fallback=True, fuse_unk=False))
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in SPECIAL_TOKENS])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return str(backend.to_str())


def hub_config() -> dict[str, object]:
    """tokenizer_config.json: `AutoTokenizer` then adds nothing, strips nothing and knows the special tokens."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": UNK,
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL_TOKENS[4:]),
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
