"""The training loop: one for every objective.

A training step sums the losses of its microbatches, divides once by the number of items in all of them, clips, and
updates. So the split into microbatches changes nothing but rounding. Everything that decides the result is a pure
function of the training step's number (batches, learning rate) or lies in the checkpoint (weights, optimizer state),
which makes a killed and resumed run end in the same bytes as an undisturbed one, on one machine.

`_Run` reads from top to bottom: what a run is made of, how it begins or goes on, one training step, and what may follow
a step (a line of the log, an evaluation, a checkpoint, an end before time).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diglot.core.errors import DiglotError
from diglot.core.peaks import product_peak
from diglot.core.progress import Bar, Progress
from diglot.core.seeds import derive_seed
from diglot.core.storage import write_json
from diglot.model.accounting import train_flops_per_token
from diglot.model.decoder import Decoder
from diglot.train.backend import agreed_backend, autocast, prepared, uncompiled
from diglot.train.checkpoint_files import CheckpointWriter
from diglot.train.checkpoints import Checkpoint, Counters, Retention, checkpoint_name
from diglot.train.clock import SAVE, STOP
from diglot.train.device import device_of, on_device
from diglot.train.log import RUN, TRAIN, TrainLog, read_lines
from diglot.train.microbatches import way_to_run
from diglot.train.optimizers import Optimizer
from diglot.train.parallel.parts import settle
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.prefetch import Prefetch, checked
from diglot.train.remote_checkpoints import checkpoint_folder, resumable
from diglot.train.reporting import changed_facts, description, facts_of, opening, report
from diglot.train.run_tensors import load_tensors, tensors_to_save
from diglot.train.speed import Speedometer
from diglot.train.spike_guard import SpikeGuard
from diglot.train.step_sums import accumulate, divide_and_clip, over_ranks
from diglot.train.stopping import Stopping
from diglot.train.stream_losses import StreamLosses
from diglot.train.types import IGNORE, Batch, Evaluation, ItemLosses, LoopSettings, Objective, Phase, TrainReport

__all__ = ["IGNORE", "Batch", "Evaluation", "ItemLosses", "LoopSettings", "Objective", "Phase", "TrainReport", "train"]


def train(
    model: Decoder,
    *,
    phases: Sequence[Phase],
    objective: Objective,
    out: Path,
    seed: int,
    settings: LoopSettings,
    progress: Progress,
    evaluation: Evaluation | None = None,
    ranks: Ranks = ALONE,
) -> TrainReport:
    """Train `model` in place and where it lies, through all phases, resuming from the newest checkpoint of the run.

    ranks: all of them call this, each with the same batches, of which it takes its share; rank 0 writes. The model has
        been divided among them by `train/parallel/sharding.py`.
    Raises: DiglotError when a loss is not finite, or after a signal or before the time limit, with the checkpoint that
        was saved.
    """
    run = _Run(model, phases, objective, out, seed, settings, progress, evaluation, ranks)
    with prepared(run.backend, model):
        return run.to_the_end()


def num_tokens(batch: Batch) -> int:
    """Tokens that a microbatch reads, padding left out."""
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else int(mask.sum())


class _Fed(NamedTuple):
    """What a training step is fed: this rank's share of the microbatches, on its device; tokens of all ranks."""

    batches: list[Batch]
    num_tokens: int


class _Run:
    """What a run is made of.

    starts: the number of each phase's first training step, and behind them the number of all training steps.
    done: the training steps and tokens that lie behind it, those before a resume too.
    microbatches: how they are run, one by one or through the stages of a pipeline.
    facts: what can change the last bits of the result; noted in every checkpoint.
    """

    def __init__(
        self,
        model: Decoder,
        phases: Sequence[Phase],
        objective: Objective,
        out: Path,
        seed: int,
        settings: LoopSettings,
        progress: Progress,
        evaluation: Evaluation | None,
        ranks: Ranks,
    ) -> None:
        self.ranks, self.writer = ranks, CheckpointWriter(ranks)
        self.folder = checkpoint_folder(settings.checkpoint_dir, out, ranks)
        self.model, self.phases, self.objective = model, phases, objective
        self.out, self.seed, self.settings, self.progress = out, seed, settings, progress
        self.evaluation = evaluation
        self.starts = [sum(p.num_train_steps for p in phases[:i]) for i in range(len(phases) + 1)]
        first = phases[0].batch_at(0)
        length = first[0]["input_ids"].shape[1]
        # Batches differ a little in objectives with padding; this estimate serves names and the compile choice.
        self.total_tokens = sum(
            p.num_tokens or p.num_train_steps * sum(map(num_tokens, first if p is phases[0] else p.batch_at(0)))
            for p in phases
        )
        flops = self.total_tokens * train_flops_per_token(model.config, length) / ranks.count
        self.device = device_of(model)
        self.backend = agreed_backend(settings, flops, self.device, ranks)
        self.facts = facts_of(self.backend, ranks)
        self.microbatches = way_to_run(model, self._losses, ranks, phases)
        self.done = Counters(train_steps_done=0, num_tokens=0)
        self.optimizer: Optimizer | None = None
        self.guard = SpikeGuard(settings.spike_guard) if settings.spike_guard else None
        self.streams = StreamLosses(settings.stream_names)
        self.stopping = Stopping(settings, ranks, self._say)
        self.resumed_from: str | None = None
        self.last_checkpoint: Checkpoint | None = None
        threads = None if self.backend.on_gpu else self.backend.num_threads
        self.peak = product_peak(self.backend.peak_precision, num_threads=threads, device=self.backend.device)

    def to_the_end(self) -> TrainReport:
        torch.manual_seed(derive_seed(self.seed, "train"))  # of every device
        on_gpu = self.backend.on_gpu
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        self._resume()
        for sentence in opening(self.model.config, self.phases, self.total_tokens, self.backend, self.peak):
            self._say(sentence)
        if self.ranks.is_main:
            about = description(self.model.config, self.phases, self.total_tokens, self.settings, self.peak, self.facts)
            write_json(self.out / RUN, about)
        started = time.perf_counter()
        before = self.done
        self.model.train()
        with (
            self.writer,
            self._open_log() as log,
            Prefetch(self._fed, before.train_steps_done, self.starts[-1], self.device if on_gpu else None) as prefetch,
            self.progress.bar(self.settings.label, self.starts[-1] - before.train_steps_done, "training steps") as bar,
            self.stopping.watching(),
        ):
            self.speed = Speedometer(self.peak, device_peak_bytes=self._device_peak_bytes if on_gpu else None)
            while self.done.train_steps_done < self.starts[-1]:
                number, tokens_before = self.done.train_steps_done, self.done.num_tokens
                line = self._train_step(number, prefetch.get(number))
                self._log_when_due(log, line)
                self._show(bar, log, line, self.done.num_tokens - tokens_before, prefetch.wait_share)
                self._evaluate_when_due(log, line, tokens_before)
                self._save_when_due(tokens_before)  # last, so that a line of any log is there when its checkpoint is
            wait_share = prefetch.wait_share
            self.last_checkpoint = self.writer.finished() or self.last_checkpoint
            asked = self.stopping.asked(self.writer.longest_seconds)
            if asked > STOP:  # a signal in the last training step, or while its checkpoint was written
                self._stop(asked)
        self.model.eval()
        seconds = time.perf_counter() - started
        return report(
            lines=self.ranks.from_main(lambda: read_lines(self.out / TRAIN)),
            done=self.done,
            resumed_from=self.resumed_from,
            seconds=seconds,
            num_tokens=self.done.num_tokens - before.num_tokens,
            speed=self.speed,
            wait_share=wait_share,
            device_peak_bytes=self._device_peak_bytes() if on_gpu else None,
            guard=self.guard,
            backend=self.backend,
        )

    def _resume(self) -> None:
        with resumable(self.folder, self.settings.order_fingerprint, self._warn, self.ranks) as checkpoint:
            if checkpoint is not None:
                self._go_on_from(checkpoint)

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        number = checkpoint.counters.train_steps_done
        goes_on: Optimizer | None = None
        if number < self.starts[-1]:
            phase, in_phase = self._phase_at(number)
            self.optimizer = Optimizer(self.model, phase.optimizer)
            goes_on = None if in_phase == 0 and phase.reset_optimizer else self.optimizer
        load_tensors(checkpoint, self.model, goes_on, self.guard, self.streams, self.ranks)
        self.done, self.resumed_from, self.last_checkpoint = checkpoint.counters, checkpoint.name, checkpoint
        changed = changed_facts(checkpoint.manifest["facts"], self.facts)
        if changed:
            self._warn(
                f"this run goes on under other conditions ({changed}); its last bits may differ from an "
                "undisturbed one."
            )
        self._say(f"resumed from checkpoint {checkpoint.name} after {number:,} training steps")

    def _phase_at(self, number: int) -> tuple[Phase, int]:
        """The phase of a training step, and the step's number in it."""
        index = next(i for i in range(len(self.phases)) if number < self.starts[i + 1])
        return self.phases[index], number - self.starts[index]

    def _fed(self, number: int) -> _Fed:
        """Called ahead, in another thread: what can be read without the GPU is read here."""
        phase, in_phase = self._phase_at(number)
        batches = checked(phase.batch_at(in_phase), number, self.model.config.vocab_size)
        tokens = sum(num_tokens(batch) for batch in batches)
        return _Fed([on_device(batch, self.device) for batch in self.ranks.rows(batches)], tokens)

    def _train_step(self, number: int, fed: _Fed) -> dict[str, Any]:
        """Losses and gradients of all microbatches, then one update. Returns a line for the log."""
        phase, in_phase = self._phase_at(number)
        if in_phase == 0 and self.guard is not None:
            self.guard.begin_phase()
        if self.optimizer is None or in_phase == 0:
            self.optimizer = self._optimizer_of(phase, self.optimizer)
        lr = phase.schedule(in_phase)
        own = accumulate(self.microbatches, fed.batches, self.streams)
        sums = over_ranks(own, self.streams, self.ranks)
        clip_norm, copies = self.settings.clip_norm, self.microbatches.copies
        norm = divide_and_clip(self.model, sums.num_items, clip_norm, self.ranks, copies)
        loss = sum(sums.losses) / sums.num_items
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.last_checkpoint = self.writer.finished() or self.last_checkpoint
            raise DiglotError(
                f"training step {number} of phase '{phase.name}' has loss {loss} and gradient norm {norm}; the weights "
                f"were not touched. Lower the learning rate (it was {lr:.3g}) or look at what it read"
                f"{self._where(number, sums.losses)}. "
                f"Last checkpoint: {self.last_checkpoint.name if self.last_checkpoint else 'none'}."
            )
        why = self.guard.objection({"grad_norm": norm, "loss": loss}, number) if self.guard is not None else None
        if why is None:
            self.optimizer.step(lr)
        self._zero_grad()
        self.done = Counters(train_steps_done=number + 1, num_tokens=self.done.num_tokens + fed.num_tokens)
        return {
            "train_step": number,
            "phase": phase.name,
            "num_tokens": self.done.num_tokens,
            "num_items": sums.num_items,
            "loss": loss,
            **{name: value / sums.num_items for name, value in sums.stats.items()},
            "learning_rate": lr,
            "grad_norm": norm,
            **({"skipped": True, "why": why} if why is not None else {}),
        }

    def _losses(self, model: Decoder, batch: Batch) -> ItemLosses:
        with autocast(self.device, self.backend.precision):
            return self.objective(model, batch)

    def _optimizer_of(self, phase: Phase, before: Optimizer | None) -> Optimizer:
        """With the phase's settings; goes on with the state of the optimizer before it, or starts afresh."""
        if before is None or phase.reset_optimizer:
            return Optimizer(self.model, phase.optimizer)
        if before.config == phase.optimizer:
            return before
        optimizer = Optimizer(self.model, phase.optimizer)
        optimizer.load_state(before.state())
        return optimizer

    def _where(self, number: int, losses: Sequence[float]) -> str:
        """Where to look for what went wrong: the microbatches with a loss that is not finite, and what was read."""
        broken = [str(i) for i, loss in enumerate(losses) if not math.isfinite(loss)]
        phase, in_phase = self._phase_at(number)
        return (f" (microbatch {', '.join(broken)} of 0..{len(losses) - 1})" if broken and len(losses) > 1 else "") + (
            f": {phase.reads(in_phase)}" if phase.reads is not None else ""
        )

    def _zero_grad(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def _log_when_due(self, log: TrainLog | None, line: dict[str, Any]) -> None:
        number = line["train_step"]
        if number % self.settings.log_every == 0 or number + 1 in self.starts or "skipped" in line:
            streams = self.streams.take()  # on every rank, as a checkpoint may be written by any
            if log is not None:
                log.train_step({**line, **streams})

    def _show(self, bar: Bar, log: TrainLog | None, line: dict[str, Any], tokens: int, wait_share: float) -> None:
        phase, _ = self._phase_at(line["train_step"])
        cost = phase.flops_per_token
        self.speed.tick(tokens, None if cost is None else cost * tokens / self.ranks.count)  # of this rank's cores
        bar.advance(1, f"loss {line['loss']:.3f}  {line['num_tokens']:,} tokens, {self.speed.note()}  {line['phase']}")
        timing = self.speed.line(last=self.done.train_steps_done == self.starts[-1])
        if log is not None and timing:
            timing["loader_wait_share"] = round(wait_share, 5)
            log.timing({"train_step": line["train_step"], "num_tokens": line["num_tokens"], **timing})

    def _evaluate_when_due(self, log: TrainLog | None, line: dict[str, Any], tokens_before: int) -> None:
        if self.evaluation is None:
            return
        every = self.evaluation.every_tokens
        if self.done.train_steps_done in self.starts or tokens_before // every != self.done.num_tokens // every:
            # Without a cache, which would keep a bfloat16 copy of every layer that is gathered as float32.
            bf16 = torch.autocast(self.device.type, torch.bfloat16, self.evaluation.bf16, cache_enabled=False)
            with self.speed.paused(), uncompiled(self.model):
                self.model.eval()
                with bf16:
                    found = self.evaluation.measure(self.model)
                self.model.train()
                settle(self.model)
            if log is not None:
                log.evaluation({key: line[key] for key in ("train_step", "phase", "num_tokens")} | dict(found))

    def _save_when_due(self, tokens_before: int) -> None:
        due, asked = self._due(tokens_before), self.stopping.asked(self.writer.longest_seconds)
        if due is not None or asked >= SAVE:
            self._save(due or ("rolling" if asked == SAVE else "emergency"))
        if asked >= STOP and self.done.train_steps_done < self.starts[-1]:
            self.last_checkpoint = self.writer.finished()
            self._stop(asked)

    def _due(self, tokens_before: int) -> Retention | None:
        """The class of the checkpoint that is due after this training step; None for no checkpoint."""
        every = self.settings.checkpoint_every_tokens
        if self.done.train_steps_done in self.starts or any(
            tokens_before < mark <= self.done.num_tokens for mark in self.settings.release_tokens
        ):
            return "release"  # ends of phases are what others want to start from
        if every is not None and tokens_before // every != self.done.num_tokens // every:
            return "rolling"
        return None

    def _save(self, retention: Retention) -> None:
        assert self.optimizer is not None
        tensors = tensors_to_save(self.model, self.optimizer, self.guard, self.streams)
        self.last_checkpoint = self.writer.finished() or self.last_checkpoint  # one at a time
        self.stopping.clock.saved()
        self.writer.write(
            self.folder,
            checkpoint_name(self.done.num_tokens, self.total_tokens),
            tensors,
            keep_rolling=self.settings.keep_rolling,
            counters=self.done,
            retention=retention,
            order_fingerprint=self.settings.order_fingerprint,
            facts=self.facts,
        )

    def _stop(self, asked: int) -> None:
        assert self.last_checkpoint is not None
        raise self.stopping.error(asked, self.done.train_steps_done, self.starts[-1], self.last_checkpoint)

    def _open_log(self) -> contextlib.AbstractContextManager[TrainLog | None]:
        if not self.ranks.is_main:
            return contextlib.nullcontext()
        return TrainLog(self.out, self.done.train_steps_done, self.settings.loggers, self.settings.label)

    def _say(self, text: str) -> None:
        self.progress.say(f"{self.settings.label}: {text}")

    def _warn(self, text: str) -> None:
        self._say(f"warning: {text}")

    def _device_peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)
