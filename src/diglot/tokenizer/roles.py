"""Which tokens begin a text, end a document and fill up a batch, as the files of a model's folder say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from diglot.core.errors import InputError
from diglot.tokenizer.json_file import read_if_there

MAP_NEO_END = "<|EOD|>"  # ends its training documents, although its configuration names </s>
NAMES_IN = ("tokenizer_config.json", "special_tokens_map.json")
IDS_IN = ("config.json", "generation_config.json")


class Roles(NamedTuple):
    """Token ids."""

    bos: int
    eos: int
    pad: int


def roles(folder: Path, ids: Mapping[str, int], **defaults: str) -> Roles:
    """What `Tokenizer.eos_id` and its neighbours describe.

    Args:
        ids: every token by its spelling.
        defaults: names of `bos`, `eos`, `pad` and `unk` where no configuration file says.

    Without a token of its own a text begins with the document end, as in GPT-2.
    Raises: InputError when nothing says which token ends a document.
    """
    found = {role: _of(role, folder, ids) for role in ("bos", "eos", "pad", "unk")}
    found |= {role: ids.get(name) for role, name in defaults.items() if found[role] is None}
    eos = ids.get(MAP_NEO_END, found["eos"])
    if eos is None:
        raise InputError(
            f"nothing in {folder} says which token ends a document. Write its name as eos_token into {NAMES_IN[0]}."
        )
    bos, pad = (
        next((token for role in order if (token := found[role]) is not None), eos)
        for order in (("bos",), ("pad", "unk", "bos"))
    )
    return Roles(bos, eos, pad)


def added_tokens(folder: Path) -> dict[str, tuple[int, bool]]:
    """Tokens that a folder without tokenizer.json adds to its vocabulary: name -> (id, whether it is special)."""
    found = {
        name: (token, True) for name, token in read_if_there(folder / "added_tokens.json").items() if _is_id(token)
    }
    table = read_if_there(folder / "tokenizer_config.json").get("added_tokens_decoder")
    for number, entry in (table if isinstance(table, dict) else {}).items():
        name = name_of(entry)
        if name is not None and number.isdecimal():
            found[name] = (int(number), bool(entry.get("special", True)))
    return found


def name_of(value: Any) -> str | None:
    """A token's name in a configuration file: a string, or an object with its `content`."""
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def _of(role: str, folder: Path, ids: Mapping[str, int]) -> int | None:
    for file in NAMES_IN:
        name = name_of(read_if_there(folder / file).get(f"{role}_token"))
        if name is not None and name in ids:
            return ids[name]
    known = set(ids.values())
    for file in IDS_IN:
        for token in _ids(read_if_there(folder / file), f"{role}_token_id"):
            if token in known:
                return token
    return None


def _ids(config: dict[str, Any], key: str) -> Iterator[int]:
    """The ids under a key, which may be a list; models of several kinds of input keep it under `text_config`."""
    for place in (config, config.get("text_config")):
        value = place.get(key) if isinstance(place, dict) else None
        for token in value if isinstance(value, list) else [value]:
            if _is_id(token):
                yield token


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
