"""Read a byte-pair `tokenizer.json` that others made (Llama, Mistral, Qwen, Gemma ...), and encode with its library.

Tokens are spelled in one of two ways. GPT-2's alphabet has a printable character for each byte. SentencePiece's writes
a space as U+2581, and the bytes of characters that it lacks as `<0x0A>`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.tokenizer.encoding import Parts, TokenArrays, arrays, not_unicode, spelled_out, without_special
from diglot.tokenizer.json_file import damaged, read_object
from diglot.tokenizer.roles import added_tokens, roles

FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
NEEDED = {
    "WordPiece": "pieces that continue a word (##), which leave no trace of the spaces between words",
    "Unigram": "pieces with probabilities and the search for the most probable cut",
    "WordLevel": "a table of whole words, in which most texts have no encoding",
}
_BYTE = re.compile("<0x([0-9A-F]{2})>")


class HubEncoder:
    """The `tokenizers` library without all that changes a text's length or adds to it."""

    def __init__(self, path: Path, spelled: Mapping[int, Sequence[int]]) -> None:
        self.path = path
        self.spelled = spelled  # special tokens that a text could be joined to, written out

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "spelled": self.spelled}

    def encode_batch(self, texts: Sequence[str], *, threads: bool) -> list[list[int]]:
        batches = [texts] if threads else [[text] for text in texts]  # the library spreads a batch over threads
        try:
            return [
                without_special(encoding.ids, self.spelled)
                for batch in batches
                for encoding in self._backend.encode_batch_fast(batch, add_special_tokens=False)
            ]
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(error) from error

    def encode_arrays(self, texts: Sequence[str], *, threads: bool) -> TokenArrays:
        return arrays(self.encode_batch(texts, threads=threads))

    def encode_with_ends(self, text: str) -> tuple[list[int], list[int]]:
        try:
            encoding = self._backend.encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(error) from error
        found = [
            (part, end)
            for token, (_, end) in zip(encoding.ids, encoding.offsets, strict=True)
            for part in self.spelled.get(token, (token,))
        ]
        return [token for token, _ in found], [end for _, end in found]

    @functools.cached_property
    def _backend(self) -> Any:
        from tokenizers import Tokenizer as Backend

        content = read_object(self.path)
        # Some files are saved with a length limit; a post-processor moves offsets; dropout joins at random.
        content |= {"truncation": None, "padding": None, "post_processor": None}
        content["model"]["dropout"] = None
        try:
            backend = Backend.from_str(json.dumps(content))
        except Exception as error:  # the library raises no narrower one
            raise damaged(self.path, error) from error
        backend.encode_special_tokens = True  # names of special tokens in a text are ordinary text
        return backend


def parts(path: Path, content: dict[str, Any]) -> Parts:
    """Raises InputError for a damaged file, and for a model that is not byte-pair encoding."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise damaged(path, "no model")
    _refuse_other_kinds(path, model)
    vocab, added = model.get("vocab"), content.get("added_tokens") or []
    try:
        ids = {str(spelling): int(token) for spelling, token in vocab.items()}  # type: ignore[union-attr]
        special = {entry["content"]: int(entry["id"]) for entry in added}
        hidden = {entry["id"] for entry in added if entry["special"]}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    taken = {*ids.values(), *special.values()}
    for name, (token, is_special) in added_tokens(path.parent).items():
        if token not in taken:  # else tokenizer.json has said what it is
            special[name] = token
            hidden |= {token} if is_special else set()
    token_bytes = _token_bytes(content, ids)
    token_bytes |= {token: b"" if token in hidden else name.encode() for name, token in special.items()}
    role = roles(path.parent, ids | special)
    return Parts(
        encoder=HubEncoder(path, _spelled(model, ids, hidden, token_bytes)),
        token_bytes=token_bytes,
        special_ids=special,
        bos_id=role.bos,
        eos_id=role.eos,
        pad_id=role.pad,
        files=FILES,
        drops_first_space=any(_drops_first_space(part) for part in _flat(content.get("decoder"))),
    )


def _refuse_other_kinds(path: Path, model: dict[str, Any]) -> None:
    kind = model.get("type", "BPE" if "merges" in model else "unknown")  # old files do not say
    if kind != "BPE":
        needed = f": it would need {NEEDED[kind]}" if kind in NEEDED else ""
        raise InputError(f"{path} is of kind {kind}, which is not supported{needed}. Supported: BPE.")
    for field in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(field):
            raise InputError(
                f"{path} marks the borders of words ({field} = {model[field]!r}), which is not supported: texts would "
                "not keep their spaces. Supported: byte-level and SentencePiece-like BPE."
            )


def _token_bytes(content: dict[str, Any], ids: Mapping[str, int]) -> dict[int, bytes]:
    """What each token of the model writes, by how the file says that tokens are read."""
    stages = [*_flat(content.get("pre_tokenizer")), *_flat(content.get("decoder"))]
    if any(stage.get("type") == "ByteLevel" for stage in stages):
        alphabet = byte_alphabet()
        return {
            token: bytes(alphabet[character] for character in spelling)
            if alphabet.keys() >= set(spelling)
            else spelling.encode()
            for spelling, token in ids.items()
        }
    spaces = {mark for stage in stages if (mark := _mark_of_space(stage))}
    falls_back = bool(content["model"].get("byte_fallback"))
    found = {}
    for spelling, token in ids.items():
        byte = _BYTE.fullmatch(spelling) if falls_back else None
        for mark in spaces:
            spelling = spelling.replace(mark, " ")
        found[token] = bytes([int(byte[1], 16)]) if byte else spelling.encode()
    return found


def byte_alphabet() -> dict[str, int]:
    """The byte that each character of GPT-2's alphabet stands for: printable Latin-1 itself, the others from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _flat(stage: Any) -> Iterator[dict[str, Any]]:
    """A stage of the pipeline, and those inside a Sequence."""
    if not isinstance(stage, dict):
        return
    yield stage
    for field in ("pretokenizers", "decoders", "normalizers"):
        for inner in stage.get(field) or []:
            yield from _flat(inner)


def _mark_of_space(stage: dict[str, Any]) -> str | None:
    """What stands for a space in spellings, where this stage says it."""
    if stage.get("type") == "Metaspace":
        return str(stage.get("replacement", "\u2581"))
    if stage.get("type") == "Replace" and stage.get("content") == " " and isinstance(stage.get("pattern"), dict):
        mark = stage["pattern"].get("String")
        return mark if isinstance(mark, str) else None
    return None


def _drops_first_space(stage: dict[str, Any]) -> bool:
    if stage.get("type") == "Metaspace":
        scheme = stage.get("prepend_scheme", "always" if stage.get("add_prefix_space", True) else "never")
        return bool(scheme != "never")
    return stage.get("type") == "Strip" and stage.get("content") == " " and bool(stage.get("start"))


def _spelled(
    model: dict[str, Any], ids: Mapping[str, int], hidden: set[int], token_bytes: Mapping[int, bytes]
) -> dict[int, list[int]]:
    """How a text writes the name of a special token that is in the model's own vocabulary, so that merges reach it."""
    unknown = ids.get(model.get("unk_token") or "", -1)
    byte_ids = {content[0]: token for token, content in token_bytes.items() if len(content) == 1}
    known = {spelling: token for spelling, token in ids.items() if token not in hidden}
    return {
        token: spelled_out(spelling, known, byte_ids, unknown)
        for spelling, token in ids.items()
        if token in hidden and token != unknown
    }
