"""A tokenizer as the fields of a GGUF file, so that llama.cpp gives the ids that we give.

    our own, SentencePiece BPE    tokenizer.ggml.model = llama: pieces with scores, bytes as <0x0A>
    byte-level BPE (GPT-2 kind)   tokenizer.ggml.model = gpt2: merges, and the name of the pre-tokenizer

llama.cpp joins the two neighbours whose joined piece has the highest score, the leftmost of equals; with scores of
minus the id that is our rule. It writes spaces as U+2581 before it looks pieces up, so pieces are written with it, and
a text that holds U+2581 itself gets the token of a space there: the one character on which ids differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.core.storage import read_json
from diglot.tokenizer.export import CHAT_TEMPLATE
from diglot.tokenizer.vocabulary import BOS, EOS, FIRST_BYTE, FIRST_PIECE, PAD, SPECIAL_TOKENS, UNK, Vocabulary

SPACE_MARK = "\u2581"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # token types, numbered as in SentencePiece

END = "<|end|>"  # closes a turn of our chat template

# What a pre-tokenizer cuts texts at -> its name in llama.cpp (llama-vocab.cpp).
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    None: "gpt-2",  # the ByteLevel step's own expression
    _CONTRACTIONS + r"\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + r"\p{N}" + _REST: "qwen2",
}


def tokenizer_fields(folder: Path, num_rows: int) -> dict[str, Any]:
    """GGUF fields of the tokenizer in a model folder.

    num_rows: of the embedding; rows without a token are named [PAD1234] and never used.
    Raises: InputError for a tokenizer that llama.cpp has no counterpart of.
    """
    path = folder / "tokenizer.json"
    content: Mapping[str, Any] = _read(path) if path.exists() else {}
    if (own := own_vocabulary(content)) is not None:
        fields = _own_fields(own)
    elif content.get("model", {}).get("type") == "BPE" and _is_byte_level(content):
        fields = _byte_level_fields(content, _special_ids(folder, content))
    elif (folder / "tokenizer.model").exists():
        fields = _sentencepiece_fields(folder / "tokenizer.model", content, _special_ids(folder, content))
    else:
        raise InputError(
            f"{folder} holds no tokenizer that llama.cpp can have: our own, a byte-level BPE (tokenizer.json) or a "
            "SentencePiece BPE (tokenizer.model)."
        )
    _pad(fields, num_rows)
    if (folder / CHAT_TEMPLATE).exists():
        fields["tokenizer.chat_template"] = plain_template((folder / CHAT_TEMPLATE).read_text(encoding="utf-8"))
    elif isinstance(template := _config(folder).get("chat_template"), str):
        fields["tokenizer.chat_template"] = plain_template(template)
    return fields


def own_vocabulary(content: Mapping[str, Any]) -> Vocabulary | None:
    """The vocabulary of a tokenizer.json that Diglot wrote; None for others."""
    ids = content.get("model", {}).get("vocab")
    if not isinstance(ids, Mapping) or [ids.get(name) for name in SPECIAL_TOKENS] != list(range(len(SPECIAL_TOKENS))):
        return None
    spellings = sorted(ids, key=lambda spelling: ids[spelling])
    try:
        vocabulary = Vocabulary(tuple(spellings[FIRST_PIECE:]))
    except InputError:
        return None
    return vocabulary if all(ids[vocabulary.spelling(t)] == t for t in range(len(vocabulary))) else None


def shadowed_names(vocabulary: Vocabulary) -> list[str]:
    """Special tokens whose names a text can be joined to in llama.cpp, because two pieces form them."""
    known = set(vocabulary.pieces)
    return [
        name
        for name in SPECIAL_TOKENS
        if any(name[:cut] in known and name[cut:] in known for cut in range(1, len(name)))
    ]


def plain_template(template: str) -> str:
    """A chat template without generation marks, which only transformers knows."""
    for mark in ("generation", "endgeneration"):
        for left in ("{%-", "{%"):
            for right in ("-%}", "%}"):
                template = template.replace(f"{left} {mark} {right}", "")
    return template


def _own_fields(vocabulary: Vocabulary) -> dict[str, Any]:
    tokens = [vocabulary.spelling(token) for token in range(len(vocabulary))]
    types = [CONTROL] * FIRST_BYTE + [BYTE] * (FIRST_PIECE - FIRST_BYTE) + [NORMAL] * len(vocabulary.pieces)
    types[SPECIAL_TOKENS.index(UNK)] = UNKNOWN
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [token.replace(" ", SPACE_MARK) for token in tokens],
        "tokenizer.ggml.scores": [-float(token) for token in range(len(tokens))],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": SPECIAL_TOKENS.index(UNK),
        "tokenizer.ggml.bos_token_id": SPECIAL_TOKENS.index(BOS),
        "tokenizer.ggml.eos_token_id": SPECIAL_TOKENS.index(EOS),
        "tokenizer.ggml.eot_token_id": SPECIAL_TOKENS.index(END),
        "tokenizer.ggml.padding_token_id": SPECIAL_TOKENS.index(PAD),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.remove_extra_whitespaces": False,
    }


def _byte_level_fields(content: Mapping[str, Any], special_ids: Mapping[str, int]) -> dict[str, Any]:
    model, added = content["model"], content.get("added_tokens") or []
    by_id = {number: spelling for spelling, number in model["vocab"].items()}
    by_id |= {token["id"]: token["content"] for token in added}
    types = {token["id"]: CONTROL if token.get("special") else USER_DEFINED for token in added}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(content),
        "tokenizer.ggml.tokens": [by_id.get(i, f"[PAD{i}]") for i in range(max(by_id) + 1)],
        "tokenizer.ggml.token_type": [types.get(i, NORMAL if i in by_id else UNUSED) for i in range(max(by_id) + 1)],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.add_bos_token": False,
        **special_ids,
    }


def _sentencepiece_fields(path: Path, content: Mapping[str, Any], special_ids: Mapping[str, int]) -> dict[str, Any]:
    from sentencepiece import sentencepiece_model_pb2 as schema  # slow to import, and not everyone's tokenizer

    try:
        model = schema.ModelProto.FromString(path.read_bytes())  # type: ignore[attr-defined]  # made when it is imported
    except Exception as error:  # protobuf's own class, which differs by version
        raise InputError(f"{path} is no SentencePiece model ({error}). Download it again.") from error
    if model.trainer_spec.model_type != model.trainer_spec.BPE:
        raise InputError(
            f"{path} is no BPE model, and llama.cpp joins pieces as BPE does. It has no counterpart there."
        )
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    added = {token["id"]: token for token in content.get("added_tokens") or [] if token["id"] >= len(pieces)}
    for number in range(len(pieces), max(added, default=-1) + 1):
        token = added.get(number)
        kind = UNUSED if token is None else CONTROL if token.get("special") else USER_DEFINED
        pieces.append((f"[PAD{number}]" if token is None else token["content"], -1000.0, kind))
    spec = model.trainer_spec
    own = {"bos": spec.bos_id, "eos": spec.eos_id, "unknown": spec.unk_id, "padding": spec.pad_id}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [piece for piece, _, _ in pieces],
        "tokenizer.ggml.scores": [float(score) for _, score, _ in pieces],
        "tokenizer.ggml.token_type": [kind for _, _, kind in pieces],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": bool(model.normalizer_spec.add_dummy_prefix),
        "tokenizer.ggml.remove_extra_whitespaces": bool(model.normalizer_spec.remove_extra_whitespaces),
        **{f"tokenizer.ggml.{name}_token_id": number for name, number in own.items() if number >= 0},
        **special_ids,
    }


def _special_ids(folder: Path, content: Mapping[str, Any]) -> dict[str, int]:
    """Ids of beginning, end and padding, from the names in tokenizer_config.json."""
    ids = {token["content"]: token["id"] for token in content.get("added_tokens") or []}
    found, config = {}, _config(folder)
    for theirs, ours in (
        ("bos_token", "bos"),
        ("eos_token", "eos"),
        ("pad_token", "padding"),
        ("unk_token", "unknown"),
    ):
        name = config.get(theirs)
        name = name.get("content") if isinstance(name, Mapping) else name
        if name in ids:
            found[f"tokenizer.ggml.{ours}_token_id"] = int(ids[name])
    return found


def _is_byte_level(content: Mapping[str, Any]) -> bool:
    return any(step.get("type") == "ByteLevel" for step in _steps(content.get("pre_tokenizer")))


def _pre_tokenizer(content: Mapping[str, Any]) -> str:
    """llama.cpp's name of how a text is cut before pieces are joined."""
    expressions = []
    for step in _steps(content.get("pre_tokenizer")):
        if step.get("type") == "Split":
            expressions.append(step["pattern"].get("Regex"))
        elif step.get("type") == "ByteLevel":
            if step.get("add_prefix_space"):
                raise InputError("this tokenizer puts a space before every text, which llama.cpp's gpt2 kind does not.")
            expressions += [None] if step.get("use_regex", True) else []
        else:
            raise InputError(f"the pre-tokenizer step {step.get('type')} has no counterpart in llama.cpp.")
    if len(expressions) != 1 or expressions[0] not in PRE_TOKENIZERS:
        raise InputError(
            f"this tokenizer cuts texts at {expressions}, which is none of the ways known here: "
            f"{', '.join(PRE_TOKENIZERS.values())}. Convert it by llama.cpp's own script."
        )
    return PRE_TOKENIZERS[expressions[0]]


def _steps(part: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    if not part:
        return []
    return part["pretokenizers"] if part.get("type") == "Sequence" else [part]


def _pad(fields: dict[str, Any], num_rows: int) -> None:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    if len(tokens) > num_rows:
        raise InputError(
            f"the tokenizer has {len(tokens):,} tokens, but the model's embedding has {num_rows:,} rows. "
            "Take the tokenizer that belongs to this model."
        )
    spare = range(len(tokens), num_rows)
    fields["tokenizer.ggml.tokens"] = tokens + [f"[PAD{i}]" for i in spare]
    fields["tokenizer.ggml.token_type"] = fields["tokenizer.ggml.token_type"] + [UNUSED] * len(spare)
    if "tokenizer.ggml.scores" in fields:
        fields["tokenizer.ggml.scores"] = fields["tokenizer.ggml.scores"] + [-1e6] * len(spare)


def _config(folder: Path) -> Mapping[str, Any]:
    path = folder / "tokenizer_config.json"
    return _read(path) if path.exists() else {}


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}). Write or download it again.") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no object. Write or download it again.")
    return content
