"""A folder of Hugging Face's library becomes an artifact that packing reads texts with and training starts from."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file

from diglot.core.errors import ConfigError, InputError
from diglot.core.storage import read_json, write_json
from diglot.ledger.artifact import Artifact
from diglot.model.config import DecoderConfig, InitConfig
from diglot.model.decoder import Decoder
from diglot.model.files import load_model, save_model
from diglot.steps.export import STEP as EXPORT
from diglot.steps.import_model import STEP, ImportModelConfig, observe
from diglot.steps.pack import STEP as PACK
from diglot.steps.pretrain import STEP as PRETRAIN
from diglot.steps.pretrain_config import ModelConfig, PhaseConfig
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.train.log import read_lines
from handmade_corpus import run_step
from small_store import CHINESE, ENGLISH, packed, pretrained

transformers = pytest.importorskip("transformers")
QWEN_LIKE = DecoderConfig(
    vocab_size=416,
    d_model=48,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=8,
    ffn_dim=80,
    max_seq_len=160,
    qkv_bias=True,
    tie_embeddings=True,
)
SETTINGS: dict[str, Any] = {
    "phases": (PhaseConfig(name="more", tokens=4 * 512, batch_tokens=512, learning_rate=1e-4),),
    "sequence_length": 64,
    "compile": "never",
    "loggers": (),
    "num_threads": 1,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    pack, tokenizer = packed(tmp_path_factory.mktemp("store"))
    return {"from": pack, "tokenizer": tokenizer}


@pytest.fixture(scope="module")
def base(inputs: dict[str, Artifact]) -> Artifact:
    return pretrained(inputs["from"].store, inputs["from"], inputs["tokenizer"])


@pytest.fixture(scope="module")
def released(base: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as another lab would release it: bfloat16, written by transformers, rows to spare."""
    folder = tmp_path_factory.mktemp("released")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base.path / "model", dtype=torch.bfloat16)
    theirs.resize_token_embeddings(512, mean_resizing=False)
    theirs.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens.json", "tokenizer.model"):
        shutil.copyfile(base.path / "model" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def imported(inputs: dict[str, Artifact], released: Path) -> Artifact:
    return run_step(STEP, inputs["from"].store / "import_model" / "theirs", path=str(released))


def test_an_import_holds_the_same_bits_and_says_what_it_holds(released: Path, imported: Artifact) -> None:
    before, after = load_file(released / "model.safetensors"), load_file(imported.path / "model" / "model.safetensors")
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == torch.bfloat16 for name in before)
    assert (imported.counts["tokens"], imported.counts["spare_rows"], imported.counts["model_type"]) == (
        500,
        12,
        "llama",
    )
    fields = read_json(imported.path / "model" / "config.json")
    assert (fields["bos_token_id"], fields["eos_token_id"], fields["pad_token_id"]) == (1, 2, 3)
    assert Tokenizer.load(imported.path).encode("软件包") == Tokenizer.load(released).encode("软件包")


def test_packing_reads_texts_with_an_imported_tokenizer(inputs: dict[str, Artifact], imported: Artifact) -> None:
    split = inputs["from"].upstream("split")
    pack = run_step(PACK, split.store / "pack" / "theirs", inputs={"from": split, "tokenizer": imported})
    counts = [{**made.counts, "seconds": {}} for made in (pack, inputs["from"])]
    assert counts[0] == counts[1]


def test_training_goes_on_from_an_imported_model(inputs: dict[str, Artifact], imported: Artifact) -> None:
    fresh = run_step(
        PRETRAIN,
        imported.store / "pretrain" / "fresh",
        inputs=inputs,
        **SETTINGS,
        model=ModelConfig(d_model=32, num_layers=2, num_heads=4, max_seq_len=128),
    )
    more = run_step(
        PRETRAIN, imported.store / "pretrain" / "more", inputs={**inputs, "init_from": imported}, **SETTINGS
    )
    losses = [read_lines(run.path / "train.jsonl")[0]["loss"] for run in (fresh, more)]
    assert losses[1] < 0.8 * losses[0]
    assert load_model(more.path / "model").config == load_model(imported.path / "model").config
    plan = read_json(more.path / "plan.json")
    assert (plan["model"]["vocab_size"], plan["model"]["d_model"]) == (512, 32)


def test_training_goes_on_from_an_earlier_run(inputs: dict[str, Artifact], base: Artifact) -> None:
    more = run_step(PRETRAIN, base.store / "pretrain" / "again", inputs={**inputs, "init_from": base}, **SETTINGS)
    last = read_lines(base.path / "train.jsonl")[-1]["loss"]
    assert read_lines(more.path / "train.jsonl")[0]["loss"] == pytest.approx(last, rel=0.15)


def test_a_model_section_beside_init_from_is_refused(inputs: dict[str, Artifact], base: Artifact) -> None:
    with pytest.raises(ConfigError, match=r"init_from.*a shape and weights of its own"):
        run_step(
            PRETRAIN,
            base.store / "pretrain" / "x",
            inputs={**inputs, "init_from": base},
            **SETTINGS,
            model=ModelConfig(d_model=64),
        )


def test_sequences_and_vocabularies_that_do_not_fit_the_start_are_refused(
    inputs: dict[str, Artifact], base: Artifact, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "sequence_length": 256}
    with pytest.raises(ConfigError, match=r"sequence_length = 256.*reads 128"):
        run_step(PRETRAIN, base.store / "pretrain" / "y", inputs={**inputs, "init_from": base}, **settings)
    small = Artifact(tmp_path / "import_model" / "small")
    model = load_model(base.path / "model")
    save_model(Decoder(model.config.changed(vocab_size=400)), small.path / "model")
    with pytest.raises(InputError, match=r"has 500 tokens.*400 rows"):
        run_step(PRETRAIN, base.store / "pretrain" / "z", inputs={**inputs, "init_from": small}, **SETTINGS)


def test_what_is_observed_follows_the_contents(released: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(released, copy)
    here, there = (observe(ImportModelConfig(path=str(path)), tmp_path, tmp_path) for path in (released, copy))
    assert here == there
    write_json(copy / "config.json", {**read_json(copy / "config.json"), "rope_theta": 5.0})
    assert observe(ImportModelConfig(path=str(copy)), tmp_path, tmp_path) != here
    with pytest.raises(InputError, match="no folder at missing"):
        observe(ImportModelConfig(path="missing"), tmp_path, tmp_path)


def test_a_pickled_model_is_imported_only_where_that_is_allowed(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(released, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="allow_pickle: true"):
        run_step(STEP, tmp_path / "import_model" / "a", path=str(folder))
    made = run_step(STEP, tmp_path / "import_model" / "b", path=str(folder), allow_pickle=True)
    assert torch.equal(load_model(made.path / "model").embed.weight, load_model(released).embed.weight)


def test_a_model_with_a_byte_level_tokenizer_goes_in_and_out_again(tmp_path: Path) -> None:
    """What a released Qwen-like model goes through: imported, then written for transformers and for llama.cpp."""
    source = tmp_path / "released"
    save_model(Decoder(QWEN_LIKE, seed=1, init=InitConfig(std=0.2)), source, token_ids={"eos": 0})
    byte_level(source)
    made = run_step(STEP, tmp_path / "import_model" / "qwen", path=str(source))
    assert (made.counts["model_type"], made.counts["tokens"]) == ("qwen2", 400)
    assert Tokenizer.load(made.path).eos_id == 0
    (tmp_path / "prompts.txt").write_text("A package\nThe network is\n软件包是\n", encoding="utf-8")
    for to in ("hf", "gguf") if importlib.util.find_spec("llama_cpp") else ("hf",):
        out = run_step(
            EXPORT, tmp_path / "export" / to, inputs={"from": made}, to=to, prompts=f"{tmp_path}/prompts.txt"
        )
        assert out.counts["top1_agreement"] >= 0.99
        record = read_json(out.path / "model" / "verification.json")
        assert record["agreement"]["differently_encoded"] == []
    assert (
        load_file(tmp_path / "export/hf/model/model.safetensors").keys()
        == load_file(source / "model.safetensors").keys()
    )


def byte_level(folder: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([*ENGLISH, *CHINESE] * 3, trainer)
    made.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"},
    )
