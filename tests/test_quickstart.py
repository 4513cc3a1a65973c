"""The whole path through the command line: pages to report, killed and resumed, asked and traced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diglot.core.storage import sha256_file
from small_site import write_site

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
TINY = [
    "pages.include=null",
    "corpus.share_heldout=0.1",
    "clean.heldout_coverage=1.0",  # every page of the small site says what the others say
    "tokenizer.vocab_size=600",
    "base.model={d_model: 32, num_layers: 1, num_heads: 2, ffn_dim: 64, max_seq_len: 512}",
    "base.sequence_length=64",
    "base.phases.0={name: fundamental, epochs: 3, batch_tokens: 512, learning_rate: 0.01}",
    "base.phases.1={name: decay, epochs: 1, batch_tokens: 512, learning_rate: 0.003, schedule: {shape: exponential}}",
    "base.num_threads=1",
    "base.checkpoint_every_tokens=4096",
    "dialogues.min_units=3",
    "tuned={kind: finetune, from: base, conversations: dialogues, num_train_steps: 4, num_threads: 1}",
    "preferred={kind: prefer, from: tuned, conversations: dialogues, num_prompts: 8, num_heldout_prompts: 4,"
    " max_new_tokens: 24, min_margin: 0.001, num_threads: 1}",
    "scores.max_tokens=2000",
    "scores.max_answers=2",
    "scores.num_continuations=1",
    "scores.max_new_tokens=24",
]


def diglot(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "diglot", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if check:
        assert done.returncode == 0, done.stderr + done.stdout
    return done


def run_arguments(source: Path, *more: str) -> list[str]:
    settings = [f"pages.source={source}", *TINY, *more]
    return ["run", str(RECIPE), *(part for setting in settings for part in ("--set", setting))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the small site went all the way."""
    folder = tmp_path_factory.mktemp("quickstart")
    write_site(folder / "site")
    diglot(folder, *run_arguments(folder / "site"))
    return folder


def model_hashes(folder: Path) -> dict[str, str]:
    return {step: sha256_file(folder / f"runs/quickstart/{step}/model/model.safetensors") for step in MODELS}


MODELS = ("base", "tuned", "preferred")


def test_every_page_has_one_fate_and_the_sums_are_exact(finished: Path):
    steps = finished / "runs" / "quickstart"
    counts = {step: json.loads((steps / step / "manifest.json").read_text())["counts"] for step in ("pages", "kept")}
    pages, kept = counts["pages"], counts["kept"]
    assert pages["records_read"] == pages["documents"] + sum(pages["refused"].values())
    assert pages["documents"] == kept["documents"] == kept["kept"] + kept["dropped"]
    languages = kept["languages"]
    assert sum(lang["documents"] for lang in languages.values()) == kept["documents"]
    assert all(lang["dropped"] == sum(lang["reasons"].values()) for lang in languages.values())
    assert languages["de"]["kept"] == 0
    assert min(languages["en"]["kept"], languages["zh-Hans"]["kept"]) >= 25


def test_the_second_run_reuses_everything_and_is_quick(finished: Path):
    started = time.monotonic()
    done = diglot(finished, *run_arguments(finished / "site"))
    assert done.stderr.count("reused") == 15
    assert "builds" not in done.stderr
    assert time.monotonic() - started < 10


def test_the_run_ends_with_answers_in_both_languages_scores_and_the_report(finished: Path):
    last = diglot(finished, *run_arguments(finished / "site")).stdout
    for words in (
        "bits per byte, en",
        "bits per byte, zh-Hans",
        "question [en]",
        "answer   [en]",
        "trace",
        "report:",
    ):
        assert words in last
    page = (finished / "runs/quickstart/report/report.html").read_text(encoding="utf-8")
    assert "http-equiv" not in page
    assert "<script src" not in page


def test_a_document_tells_its_life_and_its_training_steps_agree_with_the_batches(finished: Path):
    batch = json.loads(diglot(finished, "batch", "quickstart", "0", "--json").stdout)
    document = batch["sequences"][0]["documents"][0]["id"]
    why = json.loads(diglot(finished, "why", document, "--json").stdout)
    assert why["keep"] is True
    assert why["signals"]["quality"]["num_units"] > 50
    seen = json.loads(diglot(finished, "seen", document, "--json").stdout)
    assert any(0 in reading["train_steps"] for reading in seen["readings"])


def test_a_copy_names_the_document_it_copies(finished: Path):
    one = json.loads(diglot(finished, "why", "file:en/copy.html", "--json").stdout)
    other = json.loads(diglot(finished, "why", "file:en/000.html", "--json").stdout)
    dropped, kept = (one, other) if not one["keep"] else (other, one)
    assert kept["keep"] is True
    assert dropped["keep"] is False
    assert dropped["duplicate_of"]["id"] == kept["id"]


def test_a_sentence_of_the_site_is_traced_to_a_page_that_holds_it(finished: Path):
    sentence = "Backups are only worth something when somebody has tried to read them."
    trace = json.loads(diglot(finished, "trace", sentence, "--json").stdout)
    document = trace["spans"][0]["documents"][0]
    page = (finished / "site" / document["url"].removeprefix("file:")).read_text(encoding="utf-8")
    assert trace["spans"][0]["text"].strip() in page
    assert document["train_steps"]


def test_the_model_answers_in_the_terminal(finished: Path):
    assert diglot(finished, "chat", "--ask", "What is a package?").stdout.strip()


@pytest.mark.slow
def test_killed_runs_end_in_the_same_models_as_an_undisturbed_one(finished: Path, tmp_path: Path):
    """SIGKILL while pages are read, while the tokenizer or the packing runs, and in the middle of training."""
    for seconds in (2.5, 6.0, 9.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "diglot", *run_arguments(finished / "site")],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    base = tmp_path / "store" / "pretrain"
    process = subprocess.Popen(
        [sys.executable, "-m", "diglot", *run_arguments(finished / "site")],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list(base.glob("*/checkpoints/0*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    diglot(tmp_path, *run_arguments(finished / "site"))
    assert model_hashes(tmp_path) == model_hashes(finished)


def test_ctrl_c_says_how_to_go_on_and_leaves_nothing_half(tmp_path: Path):
    write_site(tmp_path / "site", pages_per_language=400)
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, *run_arguments(tmp_path / "site")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while not list(tmp_path.glob("store/ingest/*")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1, errors
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("manifest.json"))


WITH_CTRL_C = """import signal  # a job in the background of a shell starts deaf to it
signal.signal(signal.SIGINT, signal.default_int_handler)
from diglot.cli import main
main()"""


def test_bad_input_is_one_clear_message_without_a_traceback(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for arguments, code, words in (
        (run_arguments(tmp_path / "empty"), 1, "holds no files"),
        (run_arguments(tmp_path / "missing"), 1, "missing"),
        (["run", str(RECIPE), "--set", "tokenizer.vocab_sise=9"], 2, "did you mean 'vocab_size'"),
        (["run", str(RECIPE), "--shard", "8/8"], 2, "the 8 shares are 0/8, 1/8, 2/8"),
        (["run", str(RECIPE), "--cluster", "http://head"], 2, "is no address. Write ray://HOST:10001"),
        (["why", "3f9c", "--run", "none"], 1, "no run called 'none'"),
        (["run", "none.yaml"], 1, "no recipe at"),
    ):
        done = diglot(tmp_path, *arguments, check=False)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.shared
def test_the_shared_web_pages_go_all_the_way(shared: Path, tmp_path: Path):
    """Real pages: HTML in JSON lines and a WARC with redirects, errors, legacy charsets and duplicates."""
    sources = f"[{shared}/pretrain/html/inspect_site_html_md.jsonl.zst, {shared}/pretrain/warc/mixed-00000.warc.gz]"
    settings = [setting for setting in TINY if not setting.startswith(("dialogues", "corpus", "base.phases"))]
    settings += [
        "base.phases.0={name: fundamental, tokens: 20480, batch_tokens: 2048, learning_rate: 0.01}",
        "base.phases.1={name: decay, tokens: 8192, batch_tokens: 2048, learning_rate: 0.003}",
        "tokenizer.vocab_size=4096",
    ]
    arguments = ["run", str(RECIPE), "--set", f"pages.source={sources}"]
    diglot(tmp_path, *arguments, *(part for setting in settings for part in ("--set", setting)))
    refused = json.loads((tmp_path / "runs/quickstart/pages/manifest.json").read_text())["counts"]["refused"]
    assert sum(refused.values()) > 0
    assert (tmp_path / "runs/quickstart/report/report.html").exists()
