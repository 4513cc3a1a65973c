"""Recipe step `import_model`: a Hugging Face folder becomes an artifact that later steps take as their own.

Writes model/ (checked tensor by tensor, in our spelling of the same layout, in the number format it came in) and the
tokenizer's files, so that `pack` takes it as `tokenizer:` and `pretrain` as `init_from:`. Only tensors and JSON are
read; code that comes with a model is never run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from diglot.core.errors import InputError
from diglot.core.storage import write_json
from diglot.steps.context import StepContext, StepKind

CONTENT_LIMIT = 64 << 20  # bytes; larger files count by size and time of change


@dataclass(frozen=True, kw_only=True)
class ImportModelConfig:
    """path: the folder; relative ones start at the recipe, or else at the working folder.

    allow_pickle: read weights from pytorch_model.bin, tensors alone; see docs/exports.md for what that risks.
    """

    path: str = field(metadata={"result": False})  # its content counts, see `observe`
    allow_pickle: bool = field(default=False, metadata={"result": False})


def import_model(config: ImportModelConfig, context: StepContext) -> dict[str, Any]:
    """Counts: parameters, tokens, spare rows of the embedding."""
    import torch

    from diglot.model.accounting import parameter_counts
    from diglot.model.files import CONFIG, copy_tokenizer, load_model, read_config, save_model
    from diglot.model.huggingface.config import notes, stored_token_ids
    from diglot.model.shards import stored_dtypes, widest
    from diglot.tokenizer.tokenizer import Tokenizer, check_fits

    folder = find_folder(config, context.recipe_dir)
    fields = read_config(folder)
    for note in notes(fields):
        context.progress.say(note)
    model, tokenizer = load_model(folder, allow_pickle=config.allow_pickle), Tokenizer.load(folder)
    if spare := check_fits(tokenizer, model.config.vocab_size):
        context.progress.say(spare)
    copy_tokenizer(folder, context.out)
    write_json(context.out / CONFIG, fields)  # as it came; some tokenizers find the end of a text only there
    save_model(
        model,
        context.out / "model",
        folder,
        token_ids=stored_token_ids(fields),
        dtype=widest(stored_dtypes(folder) or {torch.float32}),
    )
    parameters = parameter_counts(model.config)
    return {
        "model_type": str(fields.get("model_type")),
        "parameters": parameters.total,
        "parameters_without_embeddings": parameters.without_embeddings,
        "tokens": tokenizer.vocab_size,
        "spare_rows": model.config.vocab_size - tokenizer.vocab_size,
    }


def find_folder(config: ImportModelConfig, recipe_dir: Path) -> Path:
    """Raises InputError when there is no such folder."""
    found = next((path for path in (recipe_dir / config.path, Path(config.path)) if path.is_dir()), None)
    if found is None:
        raise InputError(
            f"no folder at {config.path}. Download the model first (hf download NAME --local-dir {config.path})."
        )
    return found


def observe(config: ImportModelConfig, recipe_dir: Path, store: Path) -> dict[str, Any]:
    """A digest over names, sizes and contents of the folder's files."""
    digest, files = xxhash.xxh3_128(), sorted(p for p in find_folder(config, recipe_dir).iterdir() if p.is_file())
    for path in files:
        size = path.stat().st_size
        content = f"{path.stat().st_mtime_ns}" if size > CONTENT_LIMIT else xxhash.xxh3_64_hexdigest(path.read_bytes())
        digest.update(f"{path.name}\0{size}\0{content}\n".encode())
    return {
        "num_files": len(files),
        "num_bytes": sum(path.stat().st_size for path in files),
        "digest": digest.hexdigest(),
    }


STEP = StepKind(kind="import_model", version=1, config=ImportModelConfig, run=import_model, observe=observe)
