"""Train a bilingual byte-pair vocabulary with SentencePiece, with MAP-Neo's settings done right.

As in MAP-Neo (arXiv 2405.19327, trainer spec of the released model): BPE, digits split, byte fallback, identity
normalisation, spaces not collapsed, character coverage 0.9999, pieces of at most 16 characters. Differs on purpose:
- no prefix space is added (its paper says none, its file adds one), so a text is the concatenation of its pieces;
- runs of spaces may be pieces, else indented code costs a token per space;
- line ends and tabs never join with other characters: they have their own pieces (`vocabulary.LAYOUT_PIECES`), so a
  line's tokens do not depend on what stands before or after it;
- one thread and the given order of texts, so the same texts give the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diglot.core.errors import ConfigError, InputError
from diglot.tokenizer.vocabulary import FIRST_PIECE, SPECIAL_TOKENS, UNK, Vocabulary, with_layout

SPACE_MARK = "\u2581"
# Characters that the trainer gives a meaning of its own (U+2581 space, U+2585 unknown, NUL end of text) or that belong
# to layout pieces; texts are cut at them.
_LINE = re.compile(f"[^\\n\\r\\t\\0{SPACE_MARK}\u2585]+")
NORMAL = 1  # SentencePiece's piece type of learned pieces


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What the vocabulary depends on besides the texts."""

    vocab_size: int = 8192  # with special tokens and bytes
    character_coverage: float = 0.9999  # MAP-Neo; rarer characters are written with byte tokens
    max_piece_chars: int = 16  # MAP-Neo
    max_sentence_bytes: int = 64_000  # MAP-Neo; longer lines are cut. The trainer counts positions in 16 bits

    def __post_init__(self) -> None:
        if self.vocab_size <= FIRST_PIECE:
            raise ConfigError(
                f"vocab_size = {self.vocab_size}, but {FIRST_PIECE} ids are special tokens and bytes. "
                "Set at least 1024; 4096 to 64000 are usual."
            )
        if not 0.9 <= self.character_coverage <= 1:
            raise ConfigError(f"character_coverage = {self.character_coverage}, outside [0.9, 1]. MAP-Neo has 0.9999.")
        if not 1 <= self.max_piece_chars <= 64:
            raise ConfigError(f"max_piece_chars = {self.max_piece_chars}, outside [1, 64]. MAP-Neo has 16.")
        if not 64 <= self.max_sentence_bytes <= 65_535:
            raise ConfigError(
                f"max_sentence_bytes = {self.max_sentence_bytes}, outside [64, 65535]. MAP-Neo has 64000."
            )


def train_vocabulary(texts: Iterable[str], settings: TrainingSettings) -> tuple[Vocabulary, bytes]:
    """Learn a vocabulary; returns it and the SentencePiece model file that encodes with exactly it.

    Raises: InputError when the texts are too few for `vocab_size`; ConfigError when it cannot hold their characters.
    """
    import sentencepiece  # slow to import; the model of a finished tokenizer is run by another library

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, settings.max_sentence_bytes),
            model_writer=model,
            model_type="bpe",
            vocab_size=settings.vocab_size,
            hard_vocab_limit=False,  # too few texts: noticed below, with a clearer message
            character_coverage=settings.character_coverage,
            max_sentencepiece_length=settings.max_piece_chars,
            max_sentence_length=settings.max_sentence_bytes,
            split_digits=True,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            add_dummy_prefix=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            control_symbols=list(SPECIAL_TOKENS[4:]),
            input_sentence_size=0,
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explained(str(error), settings) from error
    return _rewritten(model.getvalue(), settings.vocab_size)


def _sentences(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    """What the trainer counts pieces in: lines, cut at characters that it cannot take and where they get too long."""
    longest = max_bytes // 4  # characters: UTF-8 has at most four bytes in one
    for text in texts:
        for line in _LINE.findall(text):
            for start in range(0, len(line), longest):
                yield line[start : start + longest]


def _rewritten(trained: bytes, vocab_size: int) -> tuple[Vocabulary, bytes]:
    """Real spaces instead of marks, and layout pieces, in a model that the trainer wrote."""
    from sentencepiece import sentencepiece_model_pb2 as schema

    model = schema.ModelProto.FromString(trained)  # type: ignore[attr-defined]  # made when it is imported
    learned = [piece.piece.replace(SPACE_MARK, " ") for piece in model.pieces[FIRST_PIECE:]]
    vocabulary = Vocabulary(with_layout(learned))
    if len(model.pieces) < vocab_size:
        smaller = (
            f"Set vocab_size to at most {len(model.pieces)}, or train" if len(vocabulary) < vocab_size else "Train"
        )
        raise InputError(
            f"the texts hold only {len(model.pieces)} pieces that occur twice, fewer than vocab_size = {vocab_size}. "
            f"{smaller} on more text."
        )
    if len(vocabulary) > vocab_size:
        raise _no_room(vocab_size, f"{len(vocabulary)} pieces are the fewest")
    del model.pieces[FIRST_PIECE:]
    for rank, text in enumerate(vocabulary.pieces):
        model.pieces.add(piece=text, score=-float(rank), type=NORMAL)
    model.normalizer_spec.escape_whitespaces = False
    model.trainer_spec.vocab_size = len(model.pieces)
    assert [piece.piece for piece in model.pieces] == [vocabulary.spelling(t) for t in range(len(vocabulary))], UNK
    return vocabulary, model.SerializeToString(deterministic=True)


def _explained(message: str, settings: TrainingSettings) -> Exception:
    if "required_chars" in message:
        return _no_room(settings.vocab_size, message.strip())
    return InputError(f"the tokenizer could not be trained: {message.strip()}. Look at the texts that the split kept.")


def _no_room(vocab_size: int, why: str) -> ConfigError:
    return ConfigError(
        f"vocab_size = {vocab_size} has no room for the texts' characters ({why}). "
        "Raise vocab_size, or lower character_coverage."
    )
