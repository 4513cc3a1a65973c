"""Small tokenizers as other projects make them, trained here with the libraries that they use."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from bilingual_texts import TEXTS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

EMOJI = "Smileys 😀 and families 👩‍👩‍👧, flags 🇨🇳."
SENTENCES = [*TEXTS, EMOJI, "    return value\n\n\tif x:\r\n"]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(folder: Path, *, end: str = "<|endoftext|>", normalizer: Any = None, **config: Any) -> Path:
    """As Qwen and Llama 3: GPT-2's alphabet behind a regular expression; documents end with `end`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([end, "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    return _saved(folder, tokenizer, {"eos_token": end, **config})


def like_llama(folder: Path, *, metaspace: bool = False, **config: Any) -> Path:
    """As Llama 2 and Mistral: U+2581 for spaces, one of them in front of a text, bytes for unknown characters.

    metaspace: the same by the pre-tokenizer and decoder of newer files.
    """
    spellings = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(SENTENCES[:3], trainers.BpeTrainer(vocab_size=300, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    spellings += [s for s in sorted(learned["vocab"], key=learned["vocab"].get) if s not in spellings]
    merges = [tuple(merge) for merge in learned["merges"]]
    ids = {spelling: token for token, spelling in enumerate(spellings)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1, right=0),
            ]
        )
    else:
        tokenizer.normalizer = trained.normalizer
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(content=" ", left=1, right=0),
            ]
        )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _saved(folder, tokenizer, names | config)


def like_gemma(folder: Path) -> Path:
    """As Gemma: no space in front, and layout that is added to the vocabulary without being special."""
    like_llama(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    content["decoder"]["decoders"].pop()
    size = len(content["model"]["vocab"])
    for token, name in enumerate(("\n\n", "\t\t", "<start_of_turn>"), size):
        content["added_tokens"].append(
            {
                "id": token,
                "content": name,
                "special": name.startswith("<"),
                "normalized": False,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
            }
        )
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def like_map_neo(folder: Path, model_type: str = "bpe", **config: Any) -> Path:
    """A bare SentencePiece file, with further tokens beside it; documents end with `<|EOD|>`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(SENTENCES).splitlines()),
        model_writer=model,
        model_type=model_type,
        vocab_size=480,
        hard_vocab_limit=model_type == "bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=["<|turn|>"],
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    names = ("<|CLS|>", "<|SEP|>", "<|EOD|>")
    table = {str(480 + i): {"content": name, "special": True} for i, name in enumerate(names)}
    table["3"] = {"content": "<|turn|>", "special": True}
    content = {"eos_token": "</s>", "pad_token": "<unk>", "added_tokens_decoder": table, **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


def _saved(folder: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config})
    )
    return folder
