"""Read a bare SentencePiece `tokenizer.model` (MAP-Neo, CT-LLM, Llama 2 ...) of any kind, and encode with its library.

Tokens that the folder adds beside the file (`added_tokens.json`, `added_tokens_decoder` in tokenizer_config.json) get
their ids and names, and are never found in a text: to the SentencePiece file they do not exist.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.tokenizer.encoding import Parts, TokenArrays, arrays, not_unicode, spelled_out, without_special
from diglot.tokenizer.roles import added_tokens, roles

FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
SPACE_MARK = "\u2581"
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # SentencePiece's types of pieces


class SentencePieceEncoder:
    """The `sentencepiece` library."""

    def __init__(self, path: Path, spelled: Mapping[int, Sequence[int]]) -> None:
        self.path = path
        self.spelled = spelled  # special tokens that the library would find in a text, written out

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "spelled": self.spelled}

    def encode_batch(self, texts: Sequence[str], *, threads: bool) -> list[list[int]]:
        try:
            encoded = self._backend.encode(list(texts), num_threads=-1 if threads else 1)
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(error) from error
        return [without_special(tokens, self.spelled) for tokens in encoded]

    def encode_arrays(self, texts: Sequence[str], *, threads: bool) -> TokenArrays:
        return arrays(self.encode_batch(texts, threads=threads))

    def encode_with_ends(self, text: str) -> tuple[list[int], list[int]]:
        try:
            pieces = self._backend.encode(text, return_type="proto").pieces
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(error) from error
        found = [(part, piece.end) for piece in pieces for part in self.spelled.get(piece.id, (piece.id,))]
        return [token for token, _ in found], [end for _, end in found]

    @functools.cached_property
    def _backend(self) -> Any:
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_file=str(self.path))


def parts(path: Path) -> Parts:
    """Raises InputError when the file is no SentencePiece model."""
    model = _parsed(path)
    pieces = list(model.pieces)
    ids = {piece.piece: token for token, piece in enumerate(pieces)}
    added = {name: entry for name, entry in added_tokens(path.parent).items() if ids.get(name, entry[0]) == entry[0]}
    hidden = {token for token, is_special in added.values() if is_special}
    hidden |= {token for token, piece in enumerate(pieces) if piece.type in (UNKNOWN, CONTROL)}
    special = {piece.piece: t for t, piece in enumerate(pieces) if piece.type in (UNKNOWN, CONTROL, USER_DEFINED)}
    special |= {name: token for name, (token, _) in added.items()}
    spaces = SPACE_MARK if model.normalizer_spec.escape_whitespaces else " "
    token_bytes = {
        token: bytes([int(piece.piece[3:5], 16)]) if piece.type == BYTE else piece.piece.replace(spaces, " ").encode()
        for token, piece in enumerate(pieces)
    }
    token_bytes |= {token: name.encode() for name, token in special.items() if token >= len(pieces)}
    token_bytes |= dict.fromkeys(hidden, b"")
    byte_ids = {token_bytes[token][0]: token for token, piece in enumerate(pieces) if piece.type == BYTE}
    known = {name: token for name, token in ids.items() if token not in hidden and pieces[token].type != BYTE}
    spec = model.trainer_spec
    role = roles(
        path.parent, ids | special, bos=spec.bos_piece, eos=spec.eos_piece, pad=spec.pad_piece, unk=spec.unk_piece
    )
    return Parts(
        encoder=SentencePieceEncoder(
            path,
            {
                token: spelled_out(piece.piece, known, byte_ids, ids.get(spec.unk_piece, 0))
                for token, piece in enumerate(pieces)
                if token in hidden and piece.type == USER_DEFINED
            },
        ),
        token_bytes=token_bytes,
        special_ids=special,
        bos_id=role.bos,
        eos_id=role.eos,
        pad_id=role.pad,
        files=FILES,
        drops_first_space=model.normalizer_spec.add_dummy_prefix,
    )


def _parsed(path: Path) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from sentencepiece import sentencepiece_model_pb2 as schema

    try:
        model = schema.ModelProto.FromString(path.read_bytes())  # type: ignore[attr-defined]  # made when it is imported
    except DecodeError:
        model = None
    if model is None or not model.pieces:
        raise InputError(
            f"{path} is no SentencePiece model, or a damaged one. Fetch the model's folder again; a vocabulary in "
            "tiktoken's format is not supported, but the Hugging Face folder of the same model has a tokenizer.json."
        )
    return model
