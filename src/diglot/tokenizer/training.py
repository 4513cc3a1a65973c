"""Train bilingual byte-pair vocabularies with SentencePiece, several sizes at once.

Whatever the settings:
- no prefix space is added when a text is encoded, so a text is the concatenation of its pieces;
- line ends and tabs never join with other characters, so a line's tokens do not depend on what stands around it;
- one thread and the given order of texts, so the same texts give the same bytes.

`presets.py` has named settings and says where each differs from MAP-Neo.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from diglot.core.errors import ConfigError, InputError
from diglot.tokenizer.vocabulary import FIRST_PIECE, LAYOUT_PIECES, SPECIAL_TOKENS, UNK, Vocabulary, with_layout

SPACE_MARK = "\u2581"
# Characters that the trainer gives a meaning of its own (U+2581 space, U+2585 unknown, NUL end of text) or that belong
# to layout pieces; texts are cut at them.
_LINE = re.compile(f"[^\\n\\r\\t\\0{SPACE_MARK}\u2585]+")
NORMAL = 1  # SentencePiece's piece type of learned pieces


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What the vocabulary depends on besides the texts.

    vocab_size: with special tokens and bytes.
    character_coverage: share of the characters that are pieces; the rarest others are written with byte tokens.
    max_piece_chars: the longest piece.
    max_sentence_bytes: longer lines are cut. The trainer counts positions in 16 bits.
    whitespace_pieces: runs of spaces are learned, and `vocabulary.LAYOUT_PIECES` are added. Without, indentation costs
        a token per space, and line ends and tabs are bytes.
    dummy_prefix: learn as though every line began with a space.
    """

    vocab_size: int = 8192
    character_coverage: float = 0.9999
    max_piece_chars: int = 16
    max_sentence_bytes: int = 64_000
    whitespace_pieces: bool = True
    dummy_prefix: bool = False

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


class Trained(NamedTuple):
    """A vocabulary, the SentencePiece model that encodes with exactly it, and the model as the trainer wrote it.

    The last has marks for spaces, no layout pieces and, with `dummy_prefix`, adds the prefix when it encodes.
    """

    vocabulary: Vocabulary
    model: bytes
    as_trained: bytes


def train_vocabulary(texts: Iterable[str], settings: TrainingSettings) -> tuple[Vocabulary, bytes]:
    """Learn one vocabulary; returns it and its SentencePiece model. Raises as `train_vocabularies`."""
    trained = train_vocabularies(texts, settings, [settings.vocab_size])[settings.vocab_size]
    return trained.vocabulary, trained.model


def train_vocabularies(
    texts: Iterable[str], settings: TrainingSettings, vocab_sizes: Iterable[int]
) -> dict[int, Trained]:
    """Learn the largest size and cut the others out of it, each the same to the byte as if trained on its own.

    Byte-pair training is greedy: it joins the most frequent pair, again and again, and a smaller vocabulary only stops
    earlier. The single characters are all in every size.

    Args:
        settings: its vocab_size counts for nothing.
    Raises: InputError when the texts are too few for the largest size; ConfigError when the smallest size cannot hold
        their characters.
    """
    sizes = sorted(set(vocab_sizes))
    largest = _model_of(_train(texts, replace(settings, vocab_size=sizes[-1])))
    if (found := len(largest.pieces)) < sizes[-1]:
        advice = f"Set vocab_size to at most {found}, also in vocab_sizes, or train" if _fits(largest) else "Train"
        raise InputError(
            f"the texts hold only {found} pieces that occur twice, fewer than vocab_size = {sizes[-1]}. "
            f"{advice} on more text."
        )
    return {size: _finished(_cut(largest, size), settings.whitespace_pieces) for size in sizes}


def _train(texts: Iterable[str], settings: TrainingSettings) -> bytes:
    import sentencepiece  # slow to import; the model of a finished tokenizer is run by another library

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts, settings.max_sentence_bytes),
            model_writer=model,
            model_type="bpe",
            vocab_size=settings.vocab_size,
            hard_vocab_limit=False,  # too few texts: noticed by the caller, with a clearer message
            character_coverage=settings.character_coverage,
            max_sentencepiece_length=settings.max_piece_chars,
            max_sentence_length=settings.max_sentence_bytes,
            split_digits=True,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=settings.whitespace_pieces,
            add_dummy_prefix=settings.dummy_prefix,
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
    return model.getvalue()


def _sentences(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    """What the trainer counts pieces in: lines, cut at characters that it cannot take and where they get too long."""
    longest = max_bytes // 4  # characters: UTF-8 has at most four bytes in one
    for text in texts:
        for line in _LINE.findall(text):
            for start in range(0, len(line), longest):
                yield line[start : start + longest]


def _model_of(trained: bytes) -> Any:
    from sentencepiece import sentencepiece_model_pb2 as schema

    return schema.ModelProto.FromString(trained)  # type: ignore[attr-defined]  # made when it is imported


def _cut(largest: Any, vocab_size: int) -> Any:
    """The model that training would have written for a smaller size: fewer joined pieces, then all characters."""
    model = type(largest)()
    model.CopyFrom(largest)
    learned = [piece.piece for piece in model.pieces[FIRST_PIECE:]]
    characters = [piece for piece in learned if len(piece) == 1]
    num_joined = vocab_size - FIRST_PIECE - len(characters)
    if num_joined < 0:
        raise _no_room(vocab_size, FIRST_PIECE + len(characters) + len(LAYOUT_PIECES))
    _set_learned(model, [*learned[:num_joined], *characters])
    return model


def _fits(model: Any) -> bool:
    """Whether the model's size has room for the layout pieces, too."""
    learned = [piece.piece.replace(SPACE_MARK, " ") for piece in model.pieces[FIRST_PIECE:]]
    return len(with_layout(learned)) <= len(learned)


def _finished(model: Any, whitespace_pieces: bool) -> Trained:
    """Real spaces instead of marks, and layout pieces, in a model as the trainer writes it."""
    as_trained = model.SerializeToString(deterministic=True)
    vocab_size = len(model.pieces)
    learned = [piece.piece.replace(SPACE_MARK, " ") for piece in model.pieces[FIRST_PIECE:]]
    vocabulary = Vocabulary(with_layout(learned) if whitespace_pieces else tuple(learned))
    if len(vocabulary) > vocab_size:
        raise _no_room(vocab_size, len(vocabulary))
    _set_learned(model, vocabulary.pieces, type=NORMAL)
    model.normalizer_spec.escape_whitespaces = False
    model.normalizer_spec.add_dummy_prefix = False
    assert [piece.piece for piece in model.pieces] == [vocabulary.spelling(t) for t in range(len(vocabulary))], UNK
    return Trained(vocabulary, model.SerializeToString(deterministic=True), as_trained)


def _set_learned(model: Any, pieces: Iterable[str], **fields: int) -> None:
    del model.pieces[FIRST_PIECE:]
    for rank, text in enumerate(pieces):
        model.pieces.add(piece=text, score=-float(rank), **fields)
    model.trainer_spec.vocab_size = len(model.pieces)


def _explained(message: str, settings: TrainingSettings) -> Exception:
    if "required_chars" in message:
        needed = re.search(r"required_chars\. \d+ vs (\d+)", message)
        return _no_room(settings.vocab_size, int(needed[1]) + len(LAYOUT_PIECES) if needed else None)
    return InputError(f"the tokenizer could not be trained: {message.strip()}. Look at the texts that the split kept.")


def _no_room(vocab_size: int, needed: int | None) -> ConfigError:
    raised = f"Raise it to {needed} or more" if needed else "Raise it"
    return ConfigError(
        f"vocab_size = {vocab_size} has no room for the texts' characters, which are pieces themselves. "
        f"{raised}, also in vocab_sizes, or lower character_coverage."
    )
