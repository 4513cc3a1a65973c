"""An export opens elsewhere, was compared there, and is either whole and right or not there."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from diglot.cli import main
from diglot.core.errors import ConfigError, DiglotError, InputError
from diglot.core.progress import Progress
from diglot.core.storage import read_json, sha256_file, write_json
from diglot.evaluate import agreement, llama_process
from diglot.generate.chat import prompt_ids
from diglot.generate.engine import generate
from diglot.generate.sampling import GREEDY
from diglot.ledger.artifact import Artifact
from diglot.model.decoder import Decoder
from diglot.model.files import load_model, save_model
from diglot.model.sizes import ModelConfig
from diglot.steps.export import STEP, ExportConfig, Source, _worst_huggingface_tensor, open_source, write_export
from diglot.tokenizer.tokenizer import Tokenizer
from handmade_corpus import run_step
from small_store import conversations, finetuned, packed, pretrained

transformers = pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products gain nothing from a second one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    folder = tmp_path_factory.mktemp("store")
    pack, tokenizer = packed(folder)
    base = pretrained(folder, pack, tokenizer)
    return {"pretrain": base, "finetune": finetuned(folder, base, conversations(folder, pack)), "tokenizer": tokenizer}


def test_a_trained_model_opens_in_transformers_and_was_compared_there(store: dict[str, Artifact]) -> None:
    base = store["pretrain"]
    made = run_step(STEP, base.store / "export" / "hf", inputs={"from": base}, to="hf")
    assert made.counts["verified"]
    assert made.counts["identical_continuations"] == 32
    assert made.counts["max_logit_difference"] < 1e-4
    record = read_json(made.path / "model" / "verification.json")
    assert record["agreement"]["differently_encoded"] == []
    assert record["environment"]["transformers"] == transformers.__version__
    theirs = transformers.AutoModelForCausalLM.from_pretrained(made.path / "model", dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.path / "model")
    text = "The package manager 软件包"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == Tokenizer.load(base.path / "model").encode(text)
    assert tokenizer.decode(ids) == text
    with torch.no_grad():
        ours = load_model(base.path / "model")(torch.tensor([ids])).logits
        torch.testing.assert_close(theirs(torch.tensor([ids])).logits, ours, rtol=1e-4, atol=1e-4)


def test_a_chat_model_ends_its_answers_in_transformers(store: dict[str, Artifact]) -> None:
    tuned = store["finetune"]
    made = run_step(STEP, tuned.store / "export" / "chat", inputs={"from": tuned}, dtype="bf16", verify=False)
    folder = made.path / "model"
    assert {t.dtype for t in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "什么是软件包？"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    prompt = prompt["input_ids"] if not isinstance(prompt, list) else prompt
    own = Tokenizer.load(folder)
    assert list(prompt) == prompt_ids(own, messages)
    assert read_json(folder / "generation_config.json")["eos_token_id"] == [own.special_id("<|end|>"), own.eos_id]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    written = theirs.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=20)[0, len(prompt) :].tolist()
    (answer,) = generate(
        load_model(folder),
        [list(prompt)],
        max_new_tokens=20,
        sampling=GREEDY,
        seed=0,
        stop_ids=(own.special_id("<|end|>"), own.eos_id),
    )
    assert written[: len(answer.ids)] == answer.ids


def test_a_gguf_file_was_compared_in_llama_cpp(store: dict[str, Artifact]) -> None:
    pytest.importorskip("llama_cpp", reason="needs llama-cpp-python, in diglot[llama]")
    tuned = store["finetune"]
    made = run_step(STEP, tuned.store / "export" / "gguf", inputs={"from": tuned}, to="gguf")
    assert made.counts["top1_agreement"] >= 0.99
    assert (made.path / "model" / "model-f16.gguf").stat().st_size > 10_000
    record = read_json(made.path / "model" / "verification.json")
    assert record["agreement"]["differently_encoded"] == []
    assert record["limits"]["min_top1_agreement"] == 0.99
    llama_process.open_file(str(made.path / "model" / "model-f16.gguf"), 64)
    fields = gguf.GGUFReader(made.path / "model" / "model-f16.gguf").fields
    template = jinja2.Environment().from_string(fields["tokenizer.chat_template"].contents())
    messages = [{"role": "user", "content": "什么是软件包？"}]
    asked = template.render(messages=messages, bos_token="<s>", add_generation_prompt=True)
    assert llama_process.encode(asked, special=True) == prompt_ids(Tokenizer.load(tuned.path / "model"), messages)


def test_a_name_that_llama_cpp_would_mistake_is_said(
    store: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("diglot.tokenizer.gguf.shadowed_names", lambda vocabulary: ["<s>"])
    tuned = store["finetune"]
    settings = ExportConfig(from_="", to="gguf", verify=False)
    write_export(open_source(tuned.path), tuned.store / "said", settings, prompts=None, progress=Progress())
    assert "llama.cpp will take <s> in a text for the special token" in capsys.readouterr().err


def test_a_training_checkpoint_is_exported_like_the_finished_model(store: dict[str, Artifact], tmp_path: Path) -> None:
    base = store["pretrain"]
    last = sorted((base.path / "checkpoints").iterdir())[-1]
    source = open_source(last)
    assert source.model.config == load_model(base.path / "model").config
    write_export(
        source, tmp_path / "out", ExportConfig(from_="", verify=False), prompts=None, progress=Progress(quiet=True)
    )
    whole, again = (load_file(folder / "model.safetensors") for folder in (base.path / "model", tmp_path / "out"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def half_a_run(folder: Path, checkpoint: Path, plan: dict[str, Any]) -> Path:
    """A copy of a checkpoint in the folder of a run that is not finished."""
    copied = folder / "pretrain" / "half" / "checkpoints" / checkpoint.name
    shutil.copytree(checkpoint, copied)
    write_json(copied.parent.parent / "plan.json", plan)
    return copied


def reseal(checkpoint: Path) -> None:
    """Make the manifest say what the files now are."""
    manifest = read_json(checkpoint / "manifest.json")
    names = [path.name for path in checkpoint.iterdir() if path.name != "manifest.json"]
    files = {
        name: {"bytes": (checkpoint / name).stat().st_size, "sha256": sha256_file(checkpoint / name)} for name in names
    }
    write_json(checkpoint / "manifest.json", {**manifest, "files": files})


def test_a_checkpoint_that_several_ranks_wrote_is_exported_too(store: dict[str, Artifact], tmp_path: Path) -> None:
    base = store["pretrain"]
    last = sorted((base.path / "checkpoints").iterdir())[-1]
    copied = half_a_run(tmp_path, last, read_json(base.path / "plan.json"))
    # What DCP's reader finds in it is the same as in the files of ranks: names and contents.
    shard = copied / "shard-00001-model-00001-of-00001.safetensors"
    (copied / "state.safetensors").rename(shard)
    reseal(copied)
    ours, theirs = open_source(last), open_source(copied, tokenizer=store["tokenizer"].path)
    for name, weight in ours.model.named_parameters():
        assert torch.equal(weight, theirs.model.get_parameter(name))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"is damaged: shard-00001.*Take another checkpoint"):
        open_source(copied, tokenizer=store["tokenizer"].path)
    (copied / "manifest.json").unlink()
    with pytest.raises(InputError, match="was never finished"):
        open_source(copied, tokenizer=store["tokenizer"].path)


def test_a_checkpoint_of_tied_embeddings_is_exported_with_the_ids_of_its_tokenizer(
    store: dict[str, Artifact], tmp_path: Path
) -> None:
    base = store["pretrain"]
    last = sorted((base.path / "checkpoints").iterdir())[-1]
    plan = read_json(base.path / "plan.json")
    copied = half_a_run(tmp_path, last, {**plan, "model": {**plan["model"], "tie_embeddings": True}})
    state = load_file(copied / "state.safetensors")
    save_file({name: t for name, t in state.items() if "lm_head" not in name}, copied / "state.safetensors")
    reseal(copied)
    tokenizer = tmp_path / "theirs"
    tokenizer.mkdir()
    shutil.copy(store["tokenizer"].path / "tokenizer.model", tokenizer)
    source = open_source(copied, tokenizer=tokenizer)
    assert torch.equal(source.model.lm_head.weight, state["model.embed.weight"])
    read = Tokenizer.load(tokenizer)
    assert source.token_ids == {"bos": read.bos_id, "eos": read.eos_id, "pad": read.pad_id}


def test_a_checkpoint_of_an_unfinished_run_needs_its_tokenizer_named(
    store: dict[str, Artifact], tmp_path: Path
) -> None:
    base = store["pretrain"]
    last = sorted((base.path / "checkpoints").iterdir())[-1]
    run = tmp_path / "pretrain" / "half"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / last.name).symlink_to(last)
    (run / "plan.json").write_bytes((base.path / "plan.json").read_bytes())
    with pytest.raises(InputError, match="--tokenizer"):
        open_source(run / "checkpoints" / last.name)
    source = open_source(run / "checkpoints" / last.name, tokenizer=store["tokenizer"].path)
    assert source.tokenizer == store["tokenizer"].path
    (run / "plan.json").unlink()
    with pytest.raises(InputError, match="says the shape of checkpoint"):
        open_source(run / "checkpoints" / last.name, tokenizer=store["tokenizer"].path)


def test_an_export_that_differs_is_not_kept(
    store: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = agreement.TransformersEngine.logits

    def wrong(engine: Any, ids: Sequence[int]) -> NDArray[np.float32]:
        return whole(engine, ids) + np.float32(0.5)

    monkeypatch.setattr(agreement.TransformersEngine, "logits", wrong)
    with pytest.raises(DiglotError, match=r"differs.*logits differ by 0\.5.*Most on the prompt.*every tensor of the"):
        export_base(store, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_tensor_that_a_file_holds_wrongly_is_named(store: dict[str, Artifact], tmp_path: Path) -> None:
    model = load_model(store["pretrain"].path / "model")
    save_model(model, tmp_path)
    assert "every tensor of the file is the model's" in _worst_huggingface_tensor(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] *= 1.5
    save_file(tensors, tmp_path / "model.safetensors")
    assert "is model.layers.1.mlp.up_proj.weight, by 0.5" in _worst_huggingface_tensor(model, tmp_path)


@pytest.mark.parametrize(("to", "module"), [("hf", "transformers"), ("gguf", "llama_cpp")])
def test_a_missing_library_stops_before_anything_is_written(
    to: str, module: str, store: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DiglotError, match=r"pip install 'diglot\["):
        export_base(store, tmp_path / "out", to=to)
    assert not list(tmp_path.iterdir())


def test_a_shape_without_a_layout_and_a_tokenizer_that_does_not_fit_are_refused(
    store: dict[str, Artifact], tmp_path: Path
) -> None:
    folder = store["tokenizer"].path
    shape = ModelConfig(d_model=32, num_layers=2, num_heads=4, max_seq_len=128).decoder(500)

    def source(config: Any) -> Source:
        return Source(
            model=Decoder(config).eval(), tokenizer=folder, token_ids={}, stored=torch.float32, name="handmade"
        )

    for config, message in (
        (shape.changed(ffn_dim=(32, 64)), "no Hugging Face layout.*ffn_dim"),
        (shape.changed(vocab_size=90), "has 500 tokens.*90 rows"),
    ):
        with pytest.raises((ConfigError, InputError), match=message):
            write_export(
                source(config), tmp_path / "out", ExportConfig(from_=""), prompts=None, progress=Progress(quiet=True)
            )
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(store: dict[str, Artifact], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something already"):
        export_base(store, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_current_folder_is_no_place_for_an_export(
    store: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="the folder you are in"):
        write_export(
            open_source(store["pretrain"].path), Path(), ExportConfig(from_=""), prompts=None, progress=Progress()
        )


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="q8_0 is a format of GGUF"):
        ExportConfig(from_="", to="hf", dtype="q8_0")
    with pytest.raises(ConfigError, match="at least 1 byte"):
        ExportConfig(from_="", max_shard_bytes=0)


def test_what_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        open_source(tmp_path)


def test_the_command_takes_a_run_an_artifact_and_a_folder(
    store: dict[str, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = store["pretrain"]
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    write_json(run / "plan.json", {})
    for name in ("pretrain", "finetune"):
        (run / name).symlink_to(store[name].path)
    (tmp_path / "prompts.txt").write_text("A package\n软件包\n", encoding="utf-8")
    common = ["--to", "hf", "--runs", str(tmp_path / "runs"), "--store", str(base.store)]
    with pytest.raises(SystemExit, match="0"):
        main(
            ["export", "mine", "--out", f"{tmp_path}/one", "--verify", "--prompts", f"{tmp_path}/prompts.txt", *common]
        )
    assert "2/2" in capsys.readouterr().err
    assert (tmp_path / "one" / "chat_template.jinja").exists()  # the newest model of the run is the finetuned one
    for number, what in enumerate([["mine", "--step", "pretrain"], [str(base.path)], [str(base.path / "model")]]):
        with pytest.raises(SystemExit, match="0"):
            main(["export", *what, "--out", str(tmp_path / f"more-{number}"), "--dtype", "f16", *common])
        assert json.loads((tmp_path / f"more-{number}" / "config.json").read_text())["torch_dtype"] == "float16"
    with pytest.raises(SystemExit, match="2"):
        main(["export", "mine", "--step", "pretrane", "--out", str(tmp_path / "x"), *common])
    assert "did you mean 'pretrain'" in capsys.readouterr().err


def export_base(store: dict[str, Artifact], out: Path, **settings: Any) -> dict[str, Any]:
    source = open_source(store["pretrain"].path)
    config = ExportConfig(from_="", **settings)
    return write_export(source, out, config, prompts=None, progress=Progress(quiet=True))
