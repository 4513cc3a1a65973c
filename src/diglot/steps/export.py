"""Recipe step and command `export`: a model for other libraries, checked there before it counts as written.

    model/                        config.json, safetensors, tokenizer (to: hf), or model-f16.gguf (to: gguf)
    model/verification.json       what was compared with what, and how far apart it was

The export is written under a temporary name and renamed when the check has passed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.progress import Progress
from diglot.core.storage import PARTIAL, read_json, write_json
from diglot.steps.context import StepContext, StepKind, input_step, runtime

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from diglot.evaluate.agreement import Agreement, Limits, OurEngine
    from diglot.model.config import DecoderConfig
    from diglot.model.decoder import Decoder

HF_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
GGUF_DTYPES = ("f32", "f16", "bf16", "q8_0")
MAX_SHARD_BYTES = 5_000_000_000
TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # either is one


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """to: `hf`, a Hugging Face folder, or `gguf`, a file for llama.cpp.

    dtype: of the weights, `f32`, `f16` or `bf16`, for gguf also `q8_0`; None keeps what they are stored as (hf), or
        takes f16 (gguf).
    verify: compare it with ours in the other library, and keep it only within the limits (docs/exports.md).
    prompts: file of prompts to compare on; None takes 32 of our own in English and Chinese.
    max_shard_bytes: of one safetensors file.
    """

    from_: str = input_step("pretrain", "finetune", "prefer", "import_model")
    to: Literal["hf", "gguf"] = "hf"
    dtype: Literal["f32", "f16", "bf16", "q8_0"] | None = None
    verify: bool = True
    prompts: str | None = runtime(None)
    max_shard_bytes: int = MAX_SHARD_BYTES

    def __post_init__(self) -> None:
        if self.to == "hf" and self.dtype is not None and self.dtype not in HF_DTYPES:
            raise ConfigError(
                f"dtype {self.dtype} is a format of GGUF files. For hf, set one of {', '.join(HF_DTYPES)}."
            )
        if self.max_shard_bytes < 1:
            raise ConfigError(f"max_shard_bytes = {self.max_shard_bytes}, but a shard has at least 1 byte.")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is exported.

    tokenizer: folder of its tokenizer. token_ids: bos, eos and pad, where they are known. stored: what its weights were
    stored as.
    """

    model: Decoder
    tokenizer: Path
    token_ids: Mapping[str, Any]
    stored: torch.dtype
    name: str


def export(config: ExportConfig, context: StepContext) -> dict[str, Any]:
    """Counts: parameters, bytes, and what the check found."""
    prompts = None if config.prompts is None else _beside(context.recipe_dir, config.prompts)
    source = open_source(context.input().path)
    out = context.out / "model"
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed before its manifest
    return write_export(source, out, config, prompts=prompts, progress=context.progress)


def write_export(
    source: Source, out: Path, config: ExportConfig, *, prompts: Path | None, progress: Progress
) -> dict[str, Any]:
    """Write `source` to the folder `out`, whole and within the limits or not at all.

    Raises: DiglotError naming the prompt and the tensor that differ most when the check fails; ConfigError for a shape
        without a layout.
    """
    if out.resolve() == Path.cwd():
        raise ConfigError(f"--out {out} is the folder you are in, and an export makes its own. Name another.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} holds something already. Choose another --out, or move it away.")
    partial = out.with_name(f".{out.name}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        counts = _write(source, partial, config, prompts, progress)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return counts


def open_source(path: Path, *, tokenizer: Path | None = None, allow_pickle: bool = False) -> Source:
    """The model in a model folder, an artifact of a step that trains or imports one, or a training checkpoint.

    tokenizer: its folder, where the model's own has none.
    Raises: InputError for anything else.
    """
    from diglot.model.files import load_model, read_config
    from diglot.model.huggingface.config import stored_token_ids
    from diglot.model.shards import stored_dtypes, widest

    if (path / "state.safetensors").exists() or any(path.glob("shard-*.safetensors")):
        return _open_checkpoint(path, tokenizer)
    folder = path / "model" if (path / "model" / "config.json").exists() else path
    if not (folder / "config.json").exists():
        raise InputError(
            f"{path} holds no model: neither config.json, nor model/config.json, nor state.safetensors. Name a model "
            "folder, the artifact of a training step, or a folder in checkpoints/."
        )
    model, fields = load_model(folder, allow_pickle=allow_pickle), read_config(folder)
    import torch

    return Source(
        model=model,
        tokenizer=_with_tokenizer(tokenizer or folder),
        token_ids=stored_token_ids(fields),
        stored=widest(stored_dtypes(folder) or {torch.float32}),
        name=path.name,
    )


def _open_checkpoint(path: Path, tokenizer: Path | None) -> Source:
    import torch

    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.checkpoint_files import read_state
    from diglot.train.checkpoints import MANIFEST, Checkpoint
    from diglot.train.parallel.ranks import ALONE

    artifact = path.parent.parent
    model = Decoder(_checkpoint_config(artifact, path), seed=None)
    own = dict(model.named_parameters())
    if not (path / MANIFEST).exists():
        raise InputError(f"{path} has no {MANIFEST}, so its checkpoint was never finished. Take another of the run.")
    checkpoint = Checkpoint(path, read_json(path / MANIFEST))
    if damage := checkpoint.damage():
        raise InputError(f"{path} is damaged: {damage}. Take another checkpoint of the run.")
    weights = read_state(checkpoint, "model.", own, ALONE)
    if {name: tensor.shape for name, tensor in weights.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise InputError(f"{path} is damaged, or its run has another shape.")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(weights[name])
    folder = tokenizer or artifact / "model"
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise InputError(
            f"the run of checkpoint {path.name} is not finished, so it has no copy of its tokenizer. Name the artifact "
            "of its tokenizer's step with --tokenizer."
        )
    read = Tokenizer.load(folder)
    ids = {"bos": read.bos_id, "eos": read.eos_id, "pad": read.pad_id}
    return Source(model=model.eval(), tokenizer=folder, token_ids=ids, stored=torch.float32, name=path.name)


def _checkpoint_config(artifact: Path, path: Path) -> DecoderConfig:
    from diglot.model.files import read_config
    from diglot.model.huggingface.config import config_from_json, decoder_config

    if (artifact / "plan.json").exists():
        return config_from_json(read_json(artifact / "plan.json")["model"])
    if (artifact / "model" / "config.json").exists():
        return decoder_config(read_config(artifact / "model"))
    raise InputError(f"nothing in {artifact} says the shape of checkpoint {path.name}. Finish its run first.")


def _write(source: Source, out: Path, config: ExportConfig, prompts: Path | None, progress: Progress) -> dict[str, Any]:
    from diglot.model.accounting import parameter_counts

    shape = source.model.config
    writer = _write_huggingface if config.to == "hf" else _write_gguf
    note, verification = writer(source, out, config, prompts, progress)
    if note:
        progress.say(note)
    counts = {
        "to": config.to,
        "parameters": parameter_counts(shape).total,
        "bytes": sum(path.stat().st_size for path in out.iterdir()),
        "verified": verification is not None,
    }
    if verification is not None:
        write_json(out / "verification.json", verification)
        counts |= {
            key: verification["agreement"][key]
            for key in ("max_logit_difference", "top1_agreement", "greedy_agreement", "identical_continuations")
        }
    return counts


def _write_huggingface(
    source: Source, out: Path, config: ExportConfig, prompts: Path | None, progress: Progress
) -> tuple[str | None, dict[str, Any] | None]:
    import torch

    from diglot.evaluate.agreement import HF_LIMITS, OurEngine, TransformersEngine, needed
    from diglot.model.files import load_model, save_model
    from diglot.model.huggingface.config import layout
    from diglot.tokenizer.tokenizer import Tokenizer, check_fits

    if config.verify:
        needed("transformers", "export")
    tokenizer = Tokenizer.load(source.tokenizer)
    note = check_fits(tokenizer, source.model.config.vocab_size)
    dtype = source.stored if config.dtype is None else getattr(torch, HF_DTYPES[config.dtype])
    save_model(
        source.model,
        out,
        source.tokenizer,
        token_ids=source.token_ids,
        dtype=dtype,
        max_shard_bytes=config.max_shard_bytes,
        layout=layout(source.model.config),
    )
    _write_generation_config(out, source)
    if not config.verify:
        return note, None
    # Ours reads the export too: what is compared is the same rounded numbers in two programs.
    ours = OurEngine(load_model(out), tokenizer.encode)
    return note, _verify(
        ours,
        lambda: TransformersEngine(out),
        replace(HF_LIMITS, equal_tokens=tokenizer.is_exact),
        lambda: _worst_huggingface_tensor(source.model, out),
        prompts,
        progress,
    )


def _write_gguf(
    source: Source, out: Path, config: ExportConfig, prompts: Path | None, progress: Progress
) -> tuple[str | None, dict[str, Any] | None]:
    from diglot.evaluate.agreement import GGUF_LIMITS, LlamaEngine, OurEngine, needed
    from diglot.model.gguf import write_gguf
    from diglot.tokenizer.gguf import shadowed_names, tokenizer_fields
    from diglot.tokenizer.tokenizer import Tokenizer, check_fits

    if config.verify:
        needed("llama_cpp", "llama")
    tokenizer, shape = Tokenizer.load(source.tokenizer), source.model.config
    note = check_fits(tokenizer, shape.vocab_size)
    if tokenizer.is_exact and (names := shadowed_names(tokenizer.vocabulary)):
        said = f"llama.cpp will take {', '.join(names)} in a text for the special token, as two pieces form that name"
        note = f"{note}\n{said}" if note else said
    fields = tokenizer_fields(source.tokenizer, shape.vocab_size)
    dtype = config.dtype or "f16"
    path = out / f"model-{dtype}.gguf"
    out.mkdir(parents=True)
    write_gguf(source.model, path, fields, dtype=dtype, name=source.name)
    if not config.verify:
        return note, None
    return note, _verify(
        OurEngine(source.model, tokenizer.encode),
        lambda: LlamaEngine(path, min(shape.max_seq_len, 1024)),
        replace(GGUF_LIMITS[dtype], equal_tokens=tokenizer.is_exact),
        lambda: _worst_gguf_tensor(source.model, path),
        prompts,
        progress,
    )


def _verify(
    ours: OurEngine, open_theirs: Any, limits: Limits, worst_tensor: Any, prompts: Path | None, progress: Progress
) -> dict[str, Any]:
    """The record of the comparison. Raises DiglotError when it lies outside the limits."""
    from diglot.evaluate.agreement import compare, load_prompts, table

    context = min(ours.model.config.max_seq_len, 1024)
    agreement: Agreement = compare(ours, open_theirs(), load_prompts(prompts), context=context)
    progress.say(table([agreement]))
    if failures := agreement.failures(limits):
        raise DiglotError(
            f"the export differs from our model in {agreement.engine}: {'; '.join(failures)}. Most on the prompt "
            f"{agreement.worst.prompt!r} (logits by {agreement.worst.max_logit_difference:.3g}, parting at new token "
            f"{agreement.worst.first_parting}); {worst_tensor()}. Nothing was kept."
        )
    return {"agreement": agreement.to_dict(), "limits": vars(limits), "environment": _environment()}


def _worst_huggingface_tensor(model: Decoder, out: Path) -> str:
    from diglot.model.huggingface.config import layout
    from diglot.model.huggingface.weights import huggingface_weights
    from diglot.model.shards import read_shards

    found = layout(model.config)
    parts = huggingface_weights(model, found.model_type, found.folds)
    return _worst(
        (name, parts[name].value().detach().float().numpy(), tensor.float().numpy())
        for name, tensor in read_shards(out)
    )


def _worst_gguf_tensor(model: Decoder, path: Path) -> str:
    import gguf

    from diglot.model.gguf import gguf_layout, gguf_tensors
    from diglot.model.huggingface.config import plain

    expected = gguf_tensors(model, gguf_layout(plain(model.config)))
    return _worst(
        (
            tensor.name,
            expected[tensor.name].value(),
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(expected[tensor.name].shape),
        )
        for tensor in gguf.GGUFReader(path).tensors
    )


def _worst(pairs: Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]) -> str:
    """Which tensor of the file is furthest from the model's, relative to its largest number."""
    import numpy as np

    worst, most = "none", 0.0
    for name, expected, found in pairs:
        difference = float(np.abs(expected - found).max()) / (float(np.abs(expected).max()) or 1.0)
        if not difference <= most:
            worst, most = name, difference
    if not most:
        return "every tensor of the file is the model's, so the other program computes something else with them"
    return f"the tensor furthest from the model's is {worst}, by {most:.2g} of its largest number"


def _write_generation_config(out: Path, source: Source) -> None:
    """Where an answer ends, for transformers' `generate`; a chat model also ends it with its turn."""
    if (out / "generation_config.json").exists():
        return
    ids = {f"{key}_token_id": value for key, value in source.token_ids.items()}
    special = source.tokenizer / "special_tokens.json"
    if (source.tokenizer / "chat_template.jinja").exists() and special.exists():
        ids["eos_token_id"] = [read_json(special)["<|end|>"], source.token_ids["eos"]]
    write_json(out / "generation_config.json", ids)


def _with_tokenizer(folder: Path) -> Path:
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise InputError(f"{folder} holds no tokenizer. Name the folder of one with --tokenizer.")
    return folder


def _beside(recipe_dir: Path, name: str) -> Path:
    return recipe_dir / name if (recipe_dir / name).exists() else Path(name)


def _environment() -> dict[str, str]:
    import importlib.metadata

    found = {}
    for package in ("torch", "transformers", "gguf", "llama-cpp-python"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


STEP = StepKind(kind="export", version=1, config=ExportConfig, run=export)
