"""The command line. Each command imports what it needs when it runs, so that `diglot --help` answers in a moment."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diglot.core.errors import DiglotError, InputError

if TYPE_CHECKING:
    from diglot.core.launch import Launch
    from diglot.core.progress import Progress
    from diglot.corpus.executor import Backend
    from diglot.ledger.artifact import Artifact
    from diglot.train.parallel.ranks import Ranks

app = typer.Typer(
    name="diglot",
    help="Build a bilingual language model in the open: one recipe from raw pages to a model that answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

NO_REPEAT_NGRAM = 6  # small models fall into loops; the same as in `evaluate`

RecipeArgument = Annotated[Path, typer.Argument(help="recipe file, for example recipes/quickstart.yaml")]
ScaleOption = Annotated[
    str | None, typer.Option("--scale", help="a scale of the recipe, or auto for the largest that fits")
]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="override a setting: steps.NAME.SETTING=VALUE")]
StoreOption = Annotated[Path, typer.Option("--store", envvar="DIGLOT_STORE", help="folder of the artifacts")]
RunsOption = Annotated[Path, typer.Option("--runs", envvar="DIGLOT_RUNS", help="folder of the runs")]
RunOption = Annotated[str | None, typer.Option("--run", help="name of a run; default: the latest")]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def run(
    recipe: RecipeArgument,
    scale: ScaleOption = None,
    set_: SetOption = None,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    workers: Annotated[int | None, typer.Option(min=1, help="processes; default: all cores")] = None,
    until: Annotated[str | None, typer.Option(help="stop after this step")] = None,
    cluster: Annotated[
        str, typer.Option(help="where shards are done: local, or a Ray cluster: auto, HOST:PORT, ray://HOST:PORT")
    ] = "local",
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="do every N-th shard of the first unfinished step, and leave")
    ] = None,
) -> None:
    """Build everything a recipe describes; reuse what is there; go on where a killed run stopped.

    \b
    diglot run recipes/quickstart.yaml
    diglot run recipes/quickstart.yaml --scale xs
    diglot run recipes/quickstart.yaml --set pages.source=my_pages/ --until distinct
    diglot run recipes/quickstart.yaml --cluster ray://head:10001 --store /mnt/shared/store
    diglot run recipes/quickstart.yaml --until signals --shard 2/8
    torchrun --nproc-per-node 2 -m diglot run recipes/quickstart.yaml
    """
    from diglot.core.hardware import host
    from diglot.core.launch import launch_from
    from diglot.core.progress import Progress
    from diglot.corpus.shares import Share
    from diglot.recipe.closing import closing_lines
    from diglot.recipe.run import Places, run_recipe
    from diglot.recipe.schema import load_recipe

    share = Share.parse(shard) if shard else None
    loaded = load_recipe(recipe, scale=scale, overrides=set_ or ())
    launch = launch_from(os.environ)
    is_main = launch is None or launch.is_main
    if loaded.scale and is_main:
        print(f"scale {loaded.scale}: {loaded.scale_reason}", file=sys.stderr)
    places, progress = Places(store=store, runs=runs), Progress(quiet=not is_main)
    try:
        with _ranks(launch) as ranks, _backend(cluster if is_main else "local", store, progress) as backend:
            artifacts = run_recipe(
                loaded,
                places,
                workers=workers or host().num_cores,
                progress=progress,
                until=until,
                backend=backend,
                share=share,
                ranks=ranks,
            )
    except KeyboardInterrupt:  # caught here, because typer would leave without a word
        raise DiglotError("stopped. Finished shards and checkpoints are kept; the same command goes on.") from None
    for artifact in artifacts.values():
        if artifact.kind == "report" and is_main:
            print("\n".join(closing_lines(artifact)))


@app.command()
def sizes(
    vocab_size: Annotated[int | None, typer.Option("--vocab", help="tokens; default: each size's own")] = None,
    sequence_length: Annotated[int | None, typer.Option("--sequence", help="tokens; default: the context")] = None,
    json_: JsonOption = False,
) -> None:
    """List the model sizes: shape, parameters, the cost of a token, and where each shape comes from.

    \b
    diglot sizes
    diglot sizes --vocab 16384 --sequence 1024
    """
    from dataclasses import asdict

    from diglot.model.accounting import size_table

    rows = size_table(vocab_size, sequence_length)
    if json_:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(
        "| size | layers | width | heads | kv | head | feed-forward | context | vocabulary | parameters |"
        " without embeddings | FLOP a token | weights, fp32 | trained with AdamW | shape |"
    )
    print("|---|" + "--:|" * 13 + "---|")
    for row in rows:
        print(row.line())


@app.command()
def plan(
    recipe: RecipeArgument,
    scale: ScaleOption = None,
    set_: SetOption = None,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Say what a run would build, what it would reuse, and what changed since the last run. Builds nothing.

    \b
    diglot plan recipes/quickstart.yaml --set kept.languages='[en]'
    """
    from diglot.recipe.plan import make_plan
    from diglot.recipe.run import Places
    from diglot.recipe.schema import load_recipe

    loaded = load_recipe(recipe, scale=scale, overrides=set_ or ())
    planned = make_plan(
        loaded, store.resolve(), Places(store=store, runs=runs).run_folder(loaded.run_name), describe=True
    )
    if json_:
        _print_json(
            [
                {"step": p.step.name, "status": p.status, "changes": p.changes, "details": p.details, **p.record()}
                for p in planned
            ]
        )
        return
    print(f"{loaded.run_name}: {loaded.scale_reason}")
    for p in planned:
        print(f"  {p.status:<7} {p.step.name:<12} {p.step.kind.kind:<16} {p.artifact.fingerprint}")
        for line in (*p.changes, *p.details):
            print(f"          {line}")


@app.command()
def show(
    run_name: Annotated[str | None, typer.Argument(metavar="[RUN]", help="name of a run; none: list the runs")] = None,
    step: Annotated[str | None, typer.Argument(help="a step of it, for all its numbers")] = None,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List the runs, the artifacts of one, or all that is recorded of one step.

    \b
    diglot show
    diglot show quickstart
    diglot show quickstart kept --json
    """
    from diglot.recipe.run import Places, run_artifacts

    places = Places(store=store, runs=runs)
    if run_name is None:
        names = _run_names(runs)
        _print_json(names) if json_ else print(
            "\n".join(names) or f"no runs in {runs} yet: diglot run recipes/quickstart.yaml"
        )
        return
    artifacts = run_artifacts(places, run_name)
    if step is not None:
        artifact = _step_artifact(artifacts, step, run_name)
        manifest = vars(artifact.manifest)
        if json_:
            _print_json({**manifest, "files": [vars(f) for f in artifact.manifest.files]})
            return
        for key in ("kind", "fingerprint", "started", "seconds", "config", "inputs", "counts"):
            print(f"{key}: {_brief(manifest[key])}")
        size = sum(f.bytes for f in artifact.manifest.files)
        print(f"files: {len(artifact.manifest.files)}, {size:,} bytes in {artifact.path}")
        return
    ordered = sorted(artifacts.items(), key=lambda item: item[1].manifest.ended)
    if json_:
        _print_json({name: {"path": str(a.path), "counts": a.counts} for name, a in ordered})
        return
    for name, artifact in ordered:
        numbers = ", ".join(f"{k} {_number(v)}" for k, v in artifact.counts.items() if isinstance(v, int | float))
        print(f"{name:<12} {artifact.kind:<16} {artifact.fingerprint}  {artifact.manifest.seconds:7.1f} s  {numbers}")


@app.command()
def watch(
    run_name: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="name of a run, or a folder with logs; default: the latest run"),
    ] = None,
    step: Annotated[str | None, typer.Option(help="this recipe step; default: the one that wrote last")] = None,
    once: Annotated[bool, typer.Option("--once", help="print it once and leave")] = False,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Follow the training of a run, from its logs: loss, streams, speed, memory, checkpoints. Ctrl-C leaves it running.

    \b
    diglot watch
    diglot watch quickstart --step base
    diglot watch quickstart --once
    """
    from rich.console import Console

    from diglot.recipe.run import Places
    from diglot.recipe.watch import find_training, follow, panel
    from diglot.train.run_state import Watcher

    places, name = Places(store=store, runs=runs), run_name or _latest_run(runs)
    watched = find_training(places, name, step)
    if json_:
        _print_json({"name": watched.name, "folder": watched.folder, **Watcher(watched.folder).look().to_dict()})
    elif once:
        Console().print(panel(watched, Watcher(watched.folder).look()))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            follow(lambda: find_training(places, name, step), Console())


@app.command()
def schema() -> None:
    """Print the JSON schema of recipe files, for editors.

    \b
    diglot schema > recipe.schema.json
    """
    from diglot.recipe.schema import json_schema

    _print_json(json_schema())


@app.command()
def doctor(
    peak: Annotated[
        bool, typer.Option("--peak", help="also measure products and copies a second, kept for training's MFU")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Say what this machine can do and what is missing, with the command that installs it.

    \b
    diglot doctor
    diglot doctor --peak
    """
    from diglot.recipe.doctor import examine

    findings = examine(peak=peak)
    if json_:
        _print_json([vars(f) for f in findings])
    else:
        for finding in findings:
            print(f"{finding.mark:<5} {finding.subject:<24} {finding.text}")
    if any(f.mark == "bad" for f in findings):
        raise typer.Exit(1)


@app.command()
def sift(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="name of a run, for example quickstart")],
    policy: Annotated[
        list[str] | None, typer.Option(help="another policy: FILE, a name, or LANGUAGE=FILE to say for which")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="another limit: RULE.drop_above=0.1, en.RULE.drop_below=5, RULE=off"),
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option(help="show the border of this rule; default: those that differ")
    ] = None,
    step: Annotated[str | None, typer.Option(help="the select step, where a run has several")] = None,
    examples: Annotated[int, typer.Option(min=0, help="documents shown on each side of a border")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="processes")] = 1,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """What if? Decide a run's documents by other limits, from their signals alone, and print both funnels.

    \b
    diglot sift quickstart --set curly_share.drop_above=0.05
    diglot sift quickstart --set en.duplicate_5gram_share=off --examples 5
    diglot sift quickstart --policy manuals-en
    diglot sift quickstart --rule num_units --examples 10
    """
    from diglot.core.progress import Progress
    from diglot.corpus import sift as sifting
    from diglot.corpus.policy import load_policy

    selects = {n: a for n, a in _artifacts(store, runs, run_name).items() if a.kind == "select"}
    if step is None and len(selects) != 1:
        found = (
            f"has {len(selects)} select steps: {', '.join(selects)}. Name one with --step"
            if selects
            else "has no select step"
        )
        raise InputError(f"run {run_name} {found}.")
    select = _step_artifact(selects, step, run_name) if step else next(iter(selects.values()))
    policies = sifting.run_policies(select)
    for entry in policy or ():
        language, separator, name = entry.partition("=")
        new = load_policy(name if separator else entry)
        policies = sifting.replaced(policies, new, [language] if separator else [])
    for override in set_ or ():
        policies = sifting.with_limit(policies, override)
    sifted = sifting.sift(
        select, policies, rules=rule or (), num_examples=examples, workers=workers, progress=Progress()
    )
    _answer(sifted, json_)


@app.command()
def why(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="id of a document, or its beginning")],
    run_name: RunOption = None,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Tell one document's whole life: source, signals, objections, duplicates, and where training read it.

    \b
    diglot why 3f9c02
    """
    from diglot.trace.lineage import why as ask

    _answer(ask(_artifacts(store, runs, run_name), document_id), json_)


@app.command()
def seen(
    document_id: Annotated[str, typer.Argument(metavar="ID", help="id of a document, or its beginning")],
    run_name: RunOption = None,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List every training step that read a document."""
    from diglot.trace.lineage import seen as ask

    _answer(ask(_artifacts(store, runs, run_name), document_id), json_)


@app.command()
def batch(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="name of a run, for example quickstart")],
    train_step: Annotated[
        int, typer.Argument(metavar="N", min=0, help="training step, counted from 0 over all phases")
    ],
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """List the documents of one training step.

    \b
    diglot batch quickstart 100
    """
    from diglot.trace.lineage import batch as ask

    _answer(ask(_artifacts(store, runs, run_name), train_step), json_)


@app.command()
def trace(
    text: Annotated[str, typer.Argument(help="a text, for example an answer of the model; - reads standard input")],
    run_name: RunOption = None,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
    json_: JsonOption = False,
) -> None:
    """Find the spans of a text in the training tokens, with the documents they stand in and the steps that read them.

    \b
    diglot trace "Debian is a free operating system"
    """
    from diglot.trace.answer import trace_text

    _answer(trace_text(_artifacts(store, runs, run_name), sys.stdin.read() if text == "-" else text), json_)


@app.command()
def chat(
    run_name: RunOption = None,
    question: Annotated[str | None, typer.Option("--ask", help="ask one question and leave")] = None,
    with_trace: Annotated[bool, typer.Option("--trace", help="trace every answer to its documents")] = False,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0,
    seed: int = 0,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
) -> None:
    """Talk to the model of a run. An empty line or Ctrl-D ends it.

    \b
    diglot chat
    diglot chat --ask "What is a Debian package?" --trace
    """
    from diglot.generate.chat_session import chat as start
    from diglot.generate.sampling import Sampling

    artifacts = _artifacts(store, runs, run_name)
    trained = [a for a in artifacts.values() if a.kind in ("prefer", "finetune")]
    if not trained:
        raise InputError("this run has no finished finetune or prefer step, so there is no model to talk to yet.")
    newest = max(trained, key=lambda a: (a.kind == "prefer", a.manifest.ended))
    session = start(newest, sampling=Sampling(temperature=temperature, no_repeat_ngram=NO_REPEAT_NGRAM), seed=seed)
    for line in [question] if question is not None else _typed_lines():
        answer = session.answer(line)
        print(answer)
        if with_trace:
            from diglot.trace.answer import trace_text

            _answer(trace_text(artifacts, answer), False)


@app.command()
def export(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="a model folder, an artifact, a folder of checkpoints/, or a run"),
    ],
    to: Annotated[Literal["hf", "gguf"], typer.Option("--to", help="hf, or gguf for llama.cpp")],
    out: Annotated[Path, typer.Option("--out", help="folder to write; it must not hold anything")],
    step: Annotated[str | None, typer.Option(help="the step of a run; default: the newest model")] = None,
    dtype: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"] | None,
        typer.Option(help="f32, f16, bf16, or q8_0 (gguf); default: as stored (hf), f16 (gguf)"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="compare with our model in the other library, and keep it only if equal")
    ] = False,
    prompts: Annotated[Path | None, typer.Option(help="file of prompts to compare on, one a line")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="folder of its tokenizer, where the model has none")] = None,
    max_shard_bytes: Annotated[int, typer.Option(min=1, help="of one safetensors file")] = 5_000_000_000,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="read pytorch_model.bin: tensors alone; see docs/exports.md")
    ] = False,
    store: StoreOption = Path("store"),
    runs: RunsOption = Path("runs"),
) -> None:
    """Write a model for other libraries.

    \b
    diglot export quickstart --to hf --out exported/quickstart --verify
    diglot export quickstart --step pretrained --to gguf --out exported/gguf --verify
    diglot export store/pretrain/3f9c/checkpoints/0002457.6K --to hf --out exported/middle
    """
    from diglot.core.progress import Progress
    from diglot.steps.export import ExportConfig, open_source, write_export

    config = ExportConfig(from_="", to=to, dtype=dtype, verify=verify, max_shard_bytes=max_shard_bytes)
    path = Path(checkpoint)
    if not path.is_dir():
        path = _newest_model(_artifacts(store, runs, checkpoint), checkpoint, step).path
    source = open_source(path, tokenizer=tokenizer, allow_pickle=allow_pickle)
    progress = Progress()
    counts = write_export(source, out, config, prompts=prompts, progress=progress)
    checked = "verified" if verify else "not verified; --verify compares it with our model"
    progress.say(f"{out}: {counts['parameters']:,} parameters, {counts['bytes']:,} bytes, {checked}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; print errors a user can cause as one message, without a traceback."""
    try:
        app(arguments, standalone_mode=True)
    except DiglotError as error:
        notes = "".join(f" [{note}]" for note in getattr(error, "__notes__", ()))
        print(f"diglot: {error}{notes}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `diglot show | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextlib.contextmanager
def _ranks(launch: Launch | None) -> Iterator[Ranks | None]:
    """The processes that torchrun or a scheduler started together; None for one by itself."""
    if launch is None:
        yield None
        return
    import torch

    from diglot.train.parallel.ranks import joined

    with joined(launch, "cuda" if torch.cuda.is_available() else "cpu") as ranks:
        yield ranks


@contextlib.contextmanager
def _backend(cluster: str, store: Path, progress: Progress) -> Iterator[Backend | None]:
    """The back end that `--cluster` names; None is this machine."""
    if cluster == "local":
        yield None
        return
    from diglot.corpus.ray_tasks import RayTasks

    with contextlib.closing(RayTasks(cluster, store, progress)) as backend:
        yield backend


def _run_names(runs: Path) -> list[str]:
    plans = sorted(runs.rglob("plan.json"), key=lambda p: p.stat().st_mtime) if runs.is_dir() else []
    return [str(p.parent.relative_to(runs)) for p in plans]


def _artifacts(store: Path, runs: Path, run_name: str | None) -> dict[str, Artifact]:
    from diglot.recipe.run import Places, run_artifacts

    return run_artifacts(Places(store=store, runs=runs), run_name or _latest_run(runs))


def _latest_run(runs: Path) -> str:
    names = _run_names(runs)
    if not names:
        raise InputError(f"no runs in {runs} yet. Start with: diglot run recipes/quickstart.yaml")
    return names[-1]


def _step_artifact(artifacts: dict[str, Artifact], step: str, run_name: str) -> Artifact:
    from diglot.core.errors import unknown

    if step not in artifacts:
        raise unknown("finished step", step, artifacts, f"run {run_name}")
    return artifacts[step]


def _newest_model(artifacts: dict[str, Artifact], run_name: str, step: str | None) -> Artifact:
    """The model of a step, or the furthest trained one."""
    order = ("import_model", "pretrain", "finetune", "prefer")
    trained = {name: a for name, a in artifacts.items() if a.kind in order}
    if step is not None:
        return _step_artifact(trained, step, run_name)
    if not trained:
        raise InputError(f"run {run_name} has no finished step that trains or imports a model, so there is none yet.")
    return max(trained.values(), key=lambda a: (order.index(a.kind), a.manifest.ended))


def _typed_lines() -> Iterable[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if not line:
            return
        yield line


def _answer(answer: Any, as_json: bool) -> None:
    """Print a query's result: its own text form, or its fields as JSON."""
    _print_json(answer.to_dict()) if as_json else print(answer.to_text())


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def _brief(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str) if isinstance(value, dict) else str(value)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


if __name__ == "__main__":
    main()
