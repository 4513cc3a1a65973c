"""The step pretrain: from packed tokens to a model folder, with a plan that tells what was read when."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import handmade_corpus
from diglot.core.errors import ConfigError, InputError
from diglot.core.launch import Launch
from diglot.core.progress import Progress
from diglot.core.seeds import derive_seed
from diglot.core.storage import read_json
from diglot.corpus.pack import PackedTokens
from diglot.evaluate.bits_per_byte import document_nats, language_bits_per_byte
from diglot.evaluate.heldout import heldout_documents
from diglot.ledger.artifact import Artifact
from diglot.model.files import load_model
from diglot.model.sizes import ModelConfig
from diglot.recipe.schema import load_recipe
from diglot.steps.context import Planned, StepContext
from diglot.steps.pretrain import STEP, _evaluation, pretrain
from diglot.steps.pretrain_config import PhaseConfig, PretrainConfig, plan
from diglot.steps.pretrain_preview import describe
from diglot.tokenizer.tokenizer import Tokenizer
from diglot.trace.attribution import Reads
from diglot.train.loader import batches_of
from diglot.train.log import read_lines
from diglot.train.mixture import Budget
from diglot.train.optimizer_config import OptimizerConfig
from diglot.train.order import DataOrder
from diglot.train.parallel.config import ParallelConfig
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.phases import BatchStretch, map_neo_phases
from diglot.train.schedules import ScheduleConfig
from handmade_corpus import run_step
from small_store import packed

TINY = ModelConfig(d_model=32, num_layers=2, num_heads=4, max_seq_len=128)
PHASES = (
    PhaseConfig(name="fundamental", epochs=1.0, batch_tokens=1024, learning_rate=5e-3),
    PhaseConfig(
        name="decay",
        tokens=6 * 1024,
        batch_tokens=1024,
        learning_rate=2e-3,
        mixture={"*.zh-Hans": 2.0, "*": 1.0},
        schedule=ScheduleConfig(shape="exponential", warmup_share=0.0),
    ),
)
SETTINGS: dict[str, Any] = {
    "model": TINY,
    "phases": PHASES,
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
def pretrained(inputs: dict[str, Artifact]) -> Artifact:
    return run_step(STEP, inputs["from"].store / "pretrain" / "one", inputs=inputs, **SETTINGS)


def test_the_model_learns_both_languages_and_opens_with_its_tokenizer(pretrained: Artifact) -> None:
    lines = read_lines(pretrained.path / "train.jsonl")
    assert lines[0]["loss"] == pytest.approx(np.log(500), rel=0.02)
    assert lines[-1]["loss"] < 0.75 * lines[0]["loss"]
    model, tokenizer = load_model(pretrained.path / "model"), Tokenizer.load(pretrained.path / "model")
    assert model.config.vocab_size == tokenizer.vocab_size
    ids = torch.tensor([tokenizer.encode("The package manager")])
    assert torch.isfinite(model(ids).logits).all()


def test_transformers_opens_the_model(pretrained: Artifact) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(pretrained.path / "model", dtype=torch.float32)
    tokenizer = Tokenizer.load(pretrained.path / "model")
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    ids = torch.tensor([tokenizer.encode("软件包 and package")])
    with torch.no_grad():
        ours = load_model(pretrained.path / "model")(ids).logits
        torch.testing.assert_close(theirs(ids).logits, ours, rtol=1e-4, atol=1e-4)


def test_the_plan_names_the_tokens_that_every_training_step_read(
    pretrained: Artifact, inputs: dict[str, Artifact]
) -> None:
    plan_record = read_json(pretrained.path / "plan.json")
    order = DataOrder.from_plan(plan_record)
    lines = read_lines(pretrained.path / "train.jsonl")
    assert order.num_train_steps == lines[-1]["train_step"] + 1 == pretrained.counts["num_train_steps"]
    assert order.mixture_fingerprint == plan_record["mixture_fingerprint"] == pretrained.counts["mixture_fingerprint"]
    streams = {s.stream: s.tokens for s in PackedTokens.open(inputs["from"].path).streams("train")}
    stream, index = order.sequences(3)[0]
    batch = batches_of(order, 0, streams, sequence_length=64)(3)[0]
    assert batch["input_ids"][0].tolist() == streams[stream][index * 64 : index * 64 + 64].tolist()
    assert 3 in order.train_steps(stream, index)


def test_the_log_tells_the_loss_of_the_streams_that_were_read_since_the_line_before(pretrained: Artifact) -> None:
    order = DataOrder.from_plan(read_json(pretrained.path / "plan.json"))
    lines = read_lines(pretrained.path / "train.jsonl")
    first = 0
    for line in lines:
        read = Counter(name for step in range(first, line["train_step"] + 1) for name, _ in order.sequences(step))
        assert line["stream_items"] == {name: 64 * num for name, num in sorted(read.items())}
        first = line["train_step"] + 1
    assert set(lines[-1]["language_losses"]) == {"en", "zh-Hans"}
    assert lines[-1]["stream_losses"].keys() == lines[-1]["stream_items"].keys()


def test_bits_per_byte_on_held_out_documents_fall_and_end_at_those_of_the_saved_model(
    pretrained: Artifact, inputs: dict[str, Artifact]
) -> None:
    measured = run_step(
        STEP,
        inputs["from"].store / "pretrain" / "measured",
        inputs=inputs,
        evaluate_every_tokens=10_000,
        evaluate_tokens=500,
        **SETTINGS,
    )
    lines = read_lines(measured.path / "eval.jsonl")
    assert len(lines) > 2
    for lang in ("en", "zh-Hans"):
        assert lines[-1]["bits_per_byte"][lang] < lines[0]["bits_per_byte"][lang] < 6
    packed = PackedTokens.open(inputs["from"].path)
    heldout = heldout_documents(packed, inputs["from"], max_tokens=500, seed=derive_seed(0, "evaluate"))
    eos = Tokenizer.load(measured.path / "model").eos_id
    model = load_model(measured.path / "model")
    assert lines[-1]["bits_per_byte"] == language_bits_per_byte(model, heldout, end_id=eos, context=64)
    nats = document_nats(model, heldout.tokens, heldout.starts, end_id=eos, context=64)
    english = [i for i, lang in enumerate(heldout.langs) if lang == "en"]
    by_hand = sum(nats[i] for i in english) / np.log(2) / sum(heldout.num_bytes[i] for i in english)
    assert lines[-1]["bits_per_byte"]["en"] == pytest.approx(by_hand)
    for name in ("model/model.safetensors", "train.jsonl"):
        assert (measured.path / name).read_bytes() == (pretrained.path / name).read_bytes()


@pytest.mark.parametrize("wrong", [{"evaluate_every_tokens": 0}, {"evaluate_tokens": 0}])
def test_an_evaluation_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="count from 1"):
        PretrainConfig(from_="tokens", tokenizer="tokenizer", **wrong)


def test_ranks_that_share_sequences_leave_evaluation_during_training_out_and_say_so(
    inputs: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    config = PretrainConfig(from_="pack", tokenizer="tok", **SETTINGS, evaluate_every_tokens=1024)
    context = StepContext(
        step="base",
        out=inputs["from"].path,
        inputs=inputs,
        seed=0,
        workers=1,
        progress=Progress(),
        recipe_dir=inputs["from"].path,
    )
    launch = Launch(rank=0, world_size=2, local_rank=0, local_world_size=2, address="localhost", port=1)
    packed_tokens, tokenizer = PackedTokens.open(inputs["from"].path), Tokenizer.load(inputs["tokenizer"].path)
    for readers in (ALONE, Ranks(launch).arranged(ParallelConfig())):
        assert _evaluation(config, packed_tokens, tokenizer, context, readers, bf16=False) is not None
    assert capsys.readouterr().err == ""
    sharing = Ranks(launch).arranged(ParallelConfig(tensor=2))
    assert _evaluation(config, packed_tokens, tokenizer, context, sharing, bf16=False) is None
    assert "evaluate_every_tokens has no effect with parallel: tensor" in capsys.readouterr().err


def test_checkpoints_elsewhere_have_a_folder_of_the_artifact_and_change_nothing(
    pretrained: Artifact, inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    artifact = run_step(
        STEP,
        inputs["from"].store / "pretrain" / "elsewhere",
        inputs=inputs,
        checkpoint_dir=f"file://{tmp_path}/runs",
        **SETTINGS,
    )
    manifests = list((tmp_path / "runs" / "elsewhere").glob("*/manifest.json"))
    assert len(manifests) == len(list(pretrained.path.glob("checkpoints/*/manifest.json"))) > 0
    assert not (artifact.path / "checkpoints").exists()
    assert artifact.manifest.config == pretrained.manifest.config
    assert read_json(artifact.path / "run.json")["checkpoint_dir"] == f"file://{tmp_path}/runs/elsewhere"
    assert (artifact.path / "model" / "model.safetensors").read_bytes() == (
        pretrained.path / "model" / "model.safetensors"
    ).read_bytes()


def test_the_decay_phase_has_its_own_mixture(pretrained: Artifact) -> None:
    order = DataOrder.from_plan(read_json(pretrained.path / "plan.json"))
    decay = order.phases[1]
    by_lang: Counter[str] = Counter()
    for stream, quota in decay.quotas.items():
        by_lang[stream.rpartition(".")[2]] += quota
    assert by_lang["zh-Hans"] / decay.num_sequences == pytest.approx(2 / 3, abs=0.01)
    phases = read_json(pretrained.path / "plan.json")["phases"]
    assert [phase["num_train_steps"] for phase in phases] == [order.phases[0].num_train_steps, 6]


def test_every_token_is_counted_as_read_or_unused(pretrained: Artifact) -> None:
    for stream in read_json(pretrained.path / "plan.json")["streams"]:
        assert stream["num_sequences"] * 64 + stream["tokens_unused"] + 1 == stream["num_tokens"]
        assert 1.0 < stream["epochs"] < 2.5


def test_the_same_step_gives_the_same_model_bytes(pretrained: Artifact, inputs: dict[str, Artifact]) -> None:
    again = run_step(STEP, inputs["from"].store / "pretrain" / "two", inputs=inputs, **SETTINGS)
    files = [(artifact.path / "model" / "model.safetensors").read_bytes() for artifact in (pretrained, again)]
    assert files[0] == files[1]


GROWING = (
    PhaseConfig(
        name="short",
        epochs=0.5,
        sequence_length=32,
        batch_tokens=(BatchStretch(tokens=128, until_share=0.25), BatchStretch(tokens=512)),
        learning_rate=5e-3,
    ),
    PhaseConfig(name="long", epochs=0.5, sequence_length=128, batch_tokens=512, learning_rate=2e-3),
)


@pytest.fixture(scope="module")
def grown(inputs: dict[str, Artifact]) -> Artifact:
    settings = {**SETTINGS, "phases": GROWING, "attention": "document", "mask_after_eos": True}
    return run_step(STEP, inputs["from"].store / "pretrain" / "grown", inputs=inputs, **settings)


def test_sequences_and_batches_grow_from_phase_to_phase(grown: Artifact, inputs: dict[str, Artifact]) -> None:
    record = read_json(grown.path / "plan.json")
    order = DataOrder.from_plan(record)
    assert [phase["sequence_length"] for phase in record["phases"]] == [32, 128]
    assert order.phases[0].ramp[0][1] * 32 == 128
    tokens = [len(order.sequences(n)) * (32 if order.phase_index(n) == 0 else 128) for n in (0, 20, 60)]
    lines = read_lines(grown.path / "train.jsonl")
    read = {line["train_step"]: line["num_tokens"] for line in lines}
    assert read[lines[-1]["train_step"]] == sum(phase["num_tokens"] for phase in record["phases"])
    assert read[0] == tokens[0] == 128
    assert (read[60] - read[50]) / 10 == tokens[2] == 512
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert grown.counts["num_tokens"] == lines[-1]["num_tokens"]
    assert 0 <= grown.counts["loader_wait_share"] < 1
    for stream in record["streams"]:  # one epoch, but for the rest of a block and a batch
        assert stream["epochs"] == pytest.approx(1.0, abs=0.02)


def test_a_phase_of_shorter_sequences_is_traced_by_tokens(grown: Artifact, inputs: dict[str, Artifact]) -> None:
    record = read_json(grown.path / "plan.json")
    order = DataOrder.from_plan(record)
    reads = Reads(order, record["sequence_length"])
    for train_step in (1, 30, order.num_train_steps - 1):
        length = record["phases"][order.phase_index(train_step)]["sequence_length"]
        for stream, index in order.sequences(train_step):
            assert train_step in reads.train_steps(stream, index * length + 1, index * length + 2)
    elsewhere = [n for n in range(order.num_train_steps) if n not in reads.train_steps("guide-zh.zh-Hans", 5, 6)]
    for train_step in elsewhere:
        length = record["phases"][order.phase_index(train_step)]["sequence_length"]
        assert ("guide-zh.zh-Hans", 5 // length) not in order.sequences(train_step)


def test_recomputing_activations_gives_the_same_model_bytes_for_less_memory(
    pretrained: Artifact, inputs: dict[str, Artifact]
) -> None:
    settings = {**SETTINGS, "recompute_every": 1}
    again = run_step(STEP, inputs["from"].store / "pretrain" / "recomputed", inputs=inputs, **settings)
    files = [(artifact.path / "model" / "model.safetensors").read_bytes() for artifact in (pretrained, again)]
    assert files[0] == files[1]
    lines = [
        describe(Planned(config=PretrainConfig(from_="f", tokenizer="t", **one), inputs=inputs, seed=0), None)[1]
        for one in (SETTINGS, settings)
    ]
    most = [float(re.search(r"memory of one rank: ([\d.]+) MB at most", line)[1]) for line in lines]  # type: ignore[index]
    assert most[1] < 0.8 * most[0]


def test_packed_tokens_that_changed_since_their_manifest_are_refused(
    inputs: dict[str, Artifact], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(inputs["from"].store, store)
    copied = {slot: Artifact(store / one.kind / one.fingerprint) for slot, one in inputs.items()}
    [stream, *_] = PackedTokens.open(copied["from"].path).streams("train")
    content = bytearray(stream.token_file.read_bytes())
    content[7] ^= 1
    stream.token_file.write_bytes(content)
    with pytest.raises(InputError, match=r"\.bin changed since its manifest was written"):
        run_step(STEP, store / "pretrain" / "changed", inputs=copied, **SETTINGS)
    stream.token_file.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"\.bin has [\d,]+ bytes, its manifest says"):
        run_step(STEP, store / "pretrain" / "changed", inputs=copied, **SETTINGS)
    assert not (store / "pretrain" / "changed" / "train.jsonl").exists()


RECIPE = """
recipe: one
steps:
  pages: {kind: ingest, source: pages/}
  signals: {kind: annotate, from: pages}
  kept: {kind: select, from: signals, languages: [en], policies: {en: matrix-en}}
  corpus: {kind: split, from: kept}
  tokenizer: {kind: train_tokenizer, from: corpus}
  tokens: {kind: pack, from: corpus, tokenizer: tokenizer}
  base: {kind: pretrain, from: tokens, tokenizer: tokenizer, phases: PHASES}
"""


def phases_of(written: str, folder: Path) -> tuple[PhaseConfig, ...]:
    (folder / "one.yaml").write_text(RECIPE.replace("PHASES", written))
    phases: tuple[PhaseConfig, ...] = load_recipe(folder / "one.yaml").step("base").config.phases
    return phases


def test_a_recipe_names_map_neos_phases_or_writes_them_out(tmp_path: Path) -> None:
    assert phases_of("map-neo", tmp_path) == map_neo_phases()
    written = "{preset: map-neo, epochs: 2, batch_tokens: 4096, decay_mixture: {'*.en': {share: 0.5}, '*': 1}}"
    found = phases_of(written, tmp_path)
    assert found == map_neo_phases(epochs=2, batch_tokens=4096, decay_mixture={"*.en": Budget(share=0.5), "*": 1.0})
    spelled = "{preset: map-neo, tokens: 2.0e+6, learning_rate: 2e-4}"  # YAML reads 2e-4 as text
    assert phases_of(spelled, tmp_path) == map_neo_phases(tokens=2_000_000, learning_rate=2e-4)
    ramp = "[{name: one, epochs: 1, batch_tokens: [{until_share: 0.1, tokens: 2048}, {tokens: 8192}]}]"
    [phase] = phases_of(ramp, tmp_path)
    assert phase.batch_tokens == (BatchStretch(tokens=2048, until_share=0.1), BatchStretch(tokens=8192))
    for wrong, message in [
        ("map-neu", "unknown preset 'map-neu' in phases; did you mean 'map-neo'"),
        ("{preset: map-neo, epoch: 2}", "unknown setting 'epoch' in phases of preset map-neo; did you mean 'epochs'"),
        ("{preset: map-neo, mixture: {'*': {shares: 1}}}", "shares"),
        ("{epochs: 2}", "unknown preset 'None'"),
        ("{preset: map-neo, epochs: 0}", "has no length"),
        ("{preset: map-neo, mixture: en}", "mixture = 'en' is no mapping"),
        ("{preset: map-neo, tokens: 2.5}", "tokens = 2.5 counts tokens"),
        ("{preset: map-neo, batch_tokens: [{tokens: 4096}]}", "is no number.*phases out as a list"),
    ]:
        with pytest.raises(ConfigError, match=message):
            phases_of(wrong, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"phases": (replace(PHASES[0], sequence_length=48), PHASES[1])},
            "batch_tokens|does not divide the longest, 64",
        ),
        ({"recompute_every": -1}, "counts layers"),
        ({"keep_rolling": 0}, "keep_rolling = 0, but it counts from 1"),
        ({"microbatch_tokens": 0}, "microbatch_tokens = 0"),
        ({"clip_norm": 0.0}, "clip_norm = 0.0"),
        ({"z_loss": -1e-4}, "z_loss = -0.0001"),
        ({"phases": ()}, "at least one"),
        ({"phases": (PHASES[0], PHASES[0])}, "names of their own"),
        (
            {"phases": (PHASES[0], replace(PHASES[1], optimizer=OptimizerConfig(kind="muon"), reset_optimizer=False))},
            "phase 'decay': muon cannot go on with the state of adamw",
        ),
        ({"precision": "fp8", "parallel": ParallelConfig(tensor=2)}, "fp8 scales each as a whole"),
        ({"sequence_length": 65}, "Set 975"),
        ({"sequence_length": 4096}, "max_seq_len = 128"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**{"from_": "pack", "tokenizer": "tok", **SETTINGS, **change})


def test_one_process_says_that_it_shares_nothing_and_trains_the_same(
    pretrained: Artifact,
    inputs: dict[str, Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(handmade_corpus, "Progress", lambda quiet: Progress())
    settings = {**SETTINGS, "parallel": ParallelConfig(tensor=2)}
    alone = run_step(STEP, inputs["from"].store / "pretrain" / "alone", inputs=inputs, **settings)
    assert "parallel has no effect, as this is the only process" in capsys.readouterr().err
    files = [(artifact.path / "model" / "model.safetensors").read_bytes() for artifact in (pretrained, alone)]
    assert files[0] == files[1]


def test_an_optimizer_of_one_rank_is_refused_on_several(tmp_path: Path) -> None:
    launch = Launch(rank=0, world_size=2, local_rank=0, local_world_size=2, address="localhost", port=1)
    phases = (PHASES[0], replace(PHASES[1], optimizer=OptimizerConfig(kind="adafactor")))
    config = PretrainConfig(from_="pack", tokenizer="tok", **{**SETTINGS, "phases": phases})
    context = StepContext(
        step="base",
        out=tmp_path,
        inputs={},
        seed=0,
        workers=1,
        progress=Progress(quiet=True),
        recipe_dir=tmp_path,
        ranks=Ranks(launch),
    )
    with pytest.raises(ConfigError, match="adafactor keeps means of whole rows and columns, and runs on one rank only"):
        pretrain(config, context)  # before it looks for its inputs


def test_a_phase_has_one_length() -> None:
    for lengths in ({}, {"tokens": 5, "epochs": 1.0}, {"tokens": 0}):
        with pytest.raises(ConfigError, match="phase 'one'"):
            PhaseConfig(name="one", **lengths)  # type: ignore[arg-type]


def test_a_mixture_for_a_language_that_is_not_there_is_refused_before_training() -> None:
    config = PretrainConfig(
        from_="pack",
        tokenizer="tok",
        model=TINY,
        sequence_length=64,
        phases=(PhaseConfig(name="one", epochs=1.0, mixture={"*.ja": 1.0}),),
    )
    with pytest.raises(ConfigError, match=r"'\*\.ja' fits no stream.*guide\.en"):
        plan(config, {"guide.en": 10_000}, seed=0)
    with pytest.raises(InputError, match="no training tokens"):
        plan(config, {}, seed=0)


def test_model_settings_start_from_a_size_and_change_what_they_name() -> None:
    shape = ModelConfig(size="micro", num_layers=3, multi_query=True, qk_norm=True).decoder(1000)
    assert (shape.d_model, shape.num_layers, shape.num_heads, shape.num_kv_heads) == (192, 3, 6, 1)
    assert shape.ffn_dim == 768
    assert ModelConfig(size="micro", faithful=True).decoder(1000).ffn_dim == 8 * 192
    with pytest.raises(ConfigError, match="does not divide"):
        ModelConfig(size="nano", num_heads=3).decoder(1000)


def test_plan_shows_the_mixture_and_what_changed_beside_it(inputs: dict[str, Artifact]) -> None:
    config = PretrainConfig(from_="from", tokenizer="tokenizer", **SETTINGS)
    now = Planned(config=config, inputs=inputs, seed=0)
    lines = describe(now, None)
    order = plan(config, {s.stream: s.num_tokens for s in PackedTokens.open(inputs["from"].path).streams("train")}, 0)
    assert lines[0].startswith("model: 2 layers of width 32, ")
    assert lines[1].startswith("memory of one rank: ")
    assert len(lines) == 3 + 2 * len(order.sizes)
    quota = order.phases[1].quotas["guide-zh.zh-Hans"]
    [line] = [line for line in lines if line.startswith("decay") and "guide-zh.zh-Hans" in line]
    assert line.split()[2:] == [
        f"{quota * 64:,}",
        f"{quota / 96:.4f}",
        f"{quota / order.sizes['guide-zh.zh-Hans']:.2f}",
    ]
    assert describe(now, now) == lines

    budget = replace(PHASES[1], mixture={"*.zh-Hans": Budget(share=0.25), "*": 1.0})
    after = Planned(config=replace(config, phases=(PHASES[0], budget)), inputs=inputs, seed=0)
    changed = describe(after, now)
    assert next(line for line in changed if line.startswith("fundamental")).count("->") == 0
    [line] = [line for line in changed if line.startswith("decay") and "guide-zh.zh-Hans" in line]
    assert f"{quota * 64:,} -> " in line
    nowhere = Artifact(inputs["from"].path.parent / "not-built")
    size, mixture = describe(replace(now, inputs={"from": nowhere, "tokenizer": nowhere}), None)
    assert "32.9 k parameters without embeddings; the rest is known when the tokenizer is built" in size
    assert "when its inputs are built" in mixture
