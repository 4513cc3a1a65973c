"""The training loop: one for every objective.

A training step sums the losses of its microbatches, divides once by the number of items in all of them, clips, and
updates. So the split into microbatches changes nothing but rounding. Everything that decides the result is a pure
function of the training step's number (batches, learning rate) or lies in the checkpoint (weights, optimizer state),
which makes a killed and resumed run end in the same bytes as an undisturbed one, on one machine.
"""

from __future__ import annotations

import contextlib
import functools
import math
import operator
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diglot.core.errors import DiglotError, InputError
from diglot.core.hardware import resident_peak_bytes
from diglot.core.peaks import product_peak
from diglot.core.progress import Bar, Progress
from diglot.core.seeds import derive_seed
from diglot.core.storage import write_json
from diglot.model.accounting import parameter_counts, train_flops_per_token
from diglot.model.decoder import Decoder
from diglot.train.backend import agreed_backend, prepared, uncompiled
from diglot.train.checkpoint_files import CheckpointWriter, read_state
from diglot.train.checkpoints import Checkpoint, Counters, Retention, checkpoint_name
from diglot.train.clock import SAVE, STOP, Clock
from diglot.train.device import device_of, on_device
from diglot.train.log import RUN, TRAIN, TrainLog, read_lines
from diglot.train.microbatches import Microbatches, OneByOne
from diglot.train.optimizers import Optimizer
from diglot.train.parallel.ranks import ALONE, Ranks
from diglot.train.parallel.sharding import gradient_norm, local, settle
from diglot.train.parallel.stages import check_microbatches
from diglot.train.prefetch import Prefetch, checked
from diglot.train.remote_checkpoints import checkpoint_folder, resumable
from diglot.train.speed import Speedometer, no_peak
from diglot.train.spike_guard import SpikeGuard
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
        self.out, self.settings, self.progress = out, settings, progress
        self.evaluation = evaluation
        self.starts = [sum(p.num_train_steps for p in phases[:i]) for i in range(len(phases) + 1)]
        first = phases[0].batch_at(0)
        length = first[0]["input_ids"].shape[1]
        # Batches differ a little in objectives with padding; this estimate serves names and the compile
        # choice.
        self.total_tokens = sum(
            p.num_tokens or p.num_train_steps * sum(map(num_tokens, first if p is phases[0] else p.batch_at(0)))
            for p in phases
        )
        flops = self.total_tokens * train_flops_per_token(model.config, length) / ranks.count
        self.device = device_of(model)
        self.backend = agreed_backend(settings, flops, self.device, ranks)
        self.microbatches = self._way_through_microbatches()
        self.done = Counters(train_steps_done=0, num_tokens=0)
        self.optimizer: Optimizer | None = None
        self.guard = SpikeGuard(settings.spike_guard) if settings.spike_guard else None
        self.resumed_from: str | None = None
        self.stop_signal: int | None = None
        self.clock = Clock(settings.checkpoint_every_minutes, settings.time_limit_minutes)
        self.last_checkpoint: Checkpoint | None = None
        self.seed = seed
        threads = None if self.backend.on_gpu else self.backend.num_threads
        self.peak = product_peak(self.backend.peak_precision, num_threads=threads, device=self.backend.device)
        self.speed = self._speedometer()
        self.streams = StreamLosses(settings.stream_names)

    def to_the_end(self) -> TrainReport:
        torch.manual_seed(derive_seed(self.seed, "train"))  # of every device
        if self.backend.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        self._resume()
        for note in self.backend.notes:
            self.progress.say(f"{self.settings.label}: {note}")
        counts = parameter_counts(self.model.config)
        self.progress.say(
            f"{self.settings.label}: {counts.total:,} parameters ({counts.without_embeddings:,} without embeddings), "
            f"{self.starts[-1]:,} training steps, {self.total_tokens:,} tokens, {self.backend.precision}, "
            + (self.backend.device if self.backend.on_gpu else f"{self.backend.num_threads} threads")
        )
        if self.peak is None and any(phase.flops_per_token for phase in self.phases):
            why = no_peak(self.backend.peak_precision, self.backend.num_threads, self.backend.device)
            self.progress.say(f"{self.settings.label}: no MFU: {why}")
        if self.ranks.is_main:
            write_json(self.out / RUN, self._description())
        started = time.perf_counter()
        first_tokens = self.done.num_tokens
        left = self.starts[-1] - self.done.train_steps_done
        self.model.train()
        with (
            self.writer,
            self._log() as log,
            Prefetch(
                self._fed, self.done.train_steps_done, self.starts[-1], self.device if self.backend.on_gpu else None
            ) as prefetch,
            self.progress.bar(self.settings.label, left, "training steps") as bar,
            self._signals(),
        ):
            self.speed = self._speedometer()
            while self.done.train_steps_done < self.starts[-1]:
                number = self.done.train_steps_done
                before = self.done.num_tokens
                line = self._train_step(number, prefetch.get(number))
                if number % self.settings.log_every == 0 or number + 1 in self.starts or "skipped" in line:
                    streams = self.streams.take()  # on every rank, as a checkpoint may be written by any
                    if log is not None:
                        log.train_step({**line, **streams})
                self._show(bar, log, line, self.done.num_tokens - before, prefetch.wait_share)
                self._evaluate_when_due(log, line, before)
                self._save_when_due(before)  # last, so that a line of any log is there when its checkpoint is
            wait_share = prefetch.wait_share
            self.last_checkpoint = self.writer.finished() or self.last_checkpoint
            asked = self._asked()
            if asked > STOP:  # a signal in the last training step, or while its checkpoint was written
                self._stop(asked)
        self.model.eval()
        seconds = time.perf_counter() - started
        return self._report(seconds, self.done.num_tokens - first_tokens, wait_share)

    def _speedometer(self) -> Speedometer:
        return Speedometer(self.peak, device_peak_bytes=self._device_peak_bytes if self.backend.on_gpu else None)

    def _device_peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self.device)

    def _resume(self) -> None:
        with resumable(self.folder, self.settings.order_fingerprint, self._warn, self.ranks) as checkpoint:
            if checkpoint is not None:
                self._go_on_from(checkpoint)

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        settle(self.model)
        own = dict(self.model.named_parameters())
        weights = read_state(checkpoint, "model.", own, self.ranks)
        if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in own.items()}:
            raise InputError(
                f"checkpoint {checkpoint.place} holds a model of another shape. Move it away to start a new run."
            )
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(weights[name])
        self.streams.load_state(read_state(checkpoint, "log.", self.streams.state(), self.ranks))
        self.done, self.resumed_from, self.last_checkpoint = checkpoint.counters, checkpoint.name, checkpoint
        number = self.done.train_steps_done
        if number < self.starts[-1]:
            index = self._phase_index(number)
            self.optimizer = Optimizer(self.model, self.phases[index].optimizer)
            at_fresh_start = number == self.starts[index] and self.phases[index].reset_optimizer
            if not at_fresh_start:
                state = self.optimizer.state()
                self.optimizer.load_state(read_state(checkpoint, "optimizer.", state, self.ranks))
        if self.guard is not None:
            guarded = read_state(checkpoint, "guard.", _as_tensors(self.guard.state()), self.ranks)
            if "counts" in guarded:
                self.guard.load_state({key: tensor.tolist() for key, tensor in guarded.items()})
        facts = self._facts()
        changed = {k: (v, facts[k]) for k, v in checkpoint.manifest["facts"].items() if facts.get(k) != v}
        if changed:
            self._warn(
                f"this run goes on under other conditions ({changed}); its last bits may differ from an "
                "undisturbed one."
            )
        self.progress.say(
            f"{self.settings.label}: resumed from checkpoint {checkpoint.name} after {number:,} training steps"
        )

    def _warn(self, text: str) -> None:
        self.progress.say(f"{self.settings.label}: warning: {text}")

    def _phase_index(self, train_step: int) -> int:
        return next(i for i in range(len(self.phases)) if train_step < self.starts[i + 1])

    def _fed(self, number: int) -> _Fed:
        """Called ahead, in another thread: what can be read without the GPU is read here."""
        index = self._phase_index(number)
        batches = self.phases[index].batch_at(number - self.starts[index])
        batches = checked(batches, number, self.model.config.vocab_size)
        tokens = sum(num_tokens(batch) for batch in batches)
        return _Fed([on_device(batch, self.device) for batch in self.ranks.rows(batches)], tokens)

    def _train_step(self, number: int, fed: _Fed) -> dict[str, Any]:
        index = self._phase_index(number)
        phase, local = self.phases[index], number - self.starts[index]
        if local == 0 and self.guard is not None:
            self.guard.begin_phase()
        if self.optimizer is None or local == 0:
            self.optimizer = self._optimizer_of(phase, self.optimizer)
        lr = phase.schedule(local)
        losses, count, stats = self._over_ranks(*self._accumulate(fed.batches))
        total = sum(losses)
        norm = self._divide_and_clip(count)
        loss = total / count
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.last_checkpoint = self.writer.finished() or self.last_checkpoint
            raise DiglotError(
                f"training step {number} of phase '{phase.name}' has loss {loss} and gradient norm {norm}; the weights "
                f"were not touched. Lower the learning rate (it was {lr:.3g}) or look at what it read"
                f"{self._where(number, losses)}. "
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
            "num_items": count,
            "loss": loss,
            **{name: value / count for name, value in stats.items()},
            "learning_rate": lr,
            "grad_norm": norm,
            **({"skipped": True, "why": why} if why is not None else {}),
        }

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
        index = self._phase_index(number)
        reads = self.phases[index].reads
        return (f" (microbatch {', '.join(broken)} of 0..{len(losses) - 1})" if broken and len(losses) > 1 else "") + (
            f": {reads(number - self.starts[index])}" if reads is not None else ""
        )

    def _way_through_microbatches(self) -> Microbatches:
        if self.ranks.grid is None or self.ranks.grid.shape.pipeline == 1:
            return OneByOne(lambda batch: self._losses(self.model, batch))
        # Imports torch's pipelines and the compiler, seconds that no other run need wait for.
        from diglot.train.parallel.pipeline import Pipelined

        for phase in self.phases:
            where = f"the first training step of phase '{phase.name}'"
            check_microbatches(len(phase.batch_at(0)), self.ranks.grid.shape.pipeline, where)
        return Pipelined(self.model, self._losses, self.ranks)

    def _losses(self, model: Decoder, batch: Batch) -> ItemLosses:
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.backend.autocasts):
            return self.objective(model, batch)

    def _accumulate(self, batches: list[Batch]) -> tuple[list[float], int, dict[str, float]]:
        """The loss of each microbatch of a training step, and the sums of their counts and gradients."""
        found, counts, stats = list[Tensor](), list[int | Tensor](), dict[str, list[Tensor]]()
        for batch, losses in zip(batches, self.microbatches.run(batches), strict=True):
            found.append(losses.total.detach())
            counts.append(losses.count)
            self.streams.add(batch, losses)
            for name, value in losses.stats.items():
                stats.setdefault(name, []).append(value.detach())
        # Numbers are read once a training step: reading one waits for all that the GPU has still to do.
        values = iter(_read([*found, *counts, *(value for each in stats.values() for value in each)]))
        return (
            [next(values) for _ in found],
            int(_sum([next(values) for _ in counts])),
            {name: _sum([next(values) for _ in each]) for name, each in stats.items()},
        )

    def _over_ranks(
        self, losses: list[float], count: int, stats: dict[str, float]
    ) -> tuple[list[float], int, dict[str, float]]:
        """The same of all ranks together, so that each of them decides alike."""
        items, *values = self.ranks.sums([count, *losses, *stats.values(), *self.streams.of_step()])
        if items == 0:
            raise InputError("a training step has no item to learn from: every target is masked. Check the batches.")
        losses, values = values[: len(losses)], values[len(losses) :]
        self.streams.close_step(values[len(stats) :])
        return losses, int(items), dict(zip(stats, values[: len(stats)], strict=True))

    def _divide_and_clip(self, count: int) -> float:
        """Turn summed gradients into those of the mean loss, clipped; returns the norm before clipping."""
        grads = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        copies = self.microbatches.copies
        norm = gradient_norm([grad for name, grad in grads.items() if name not in copies], self.ranks) / count
        clip = self.settings.clip_norm
        shrink = 1.0 if clip is None or norm <= clip else clip / norm
        torch._foreach_mul_([local(grad) for grad in grads.values()], shrink / count)
        return norm

    def _zero_grad(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = None

    def _show(self, bar: Bar, log: TrainLog | None, line: dict[str, Any], tokens: int, wait_share: float) -> None:
        number = line["train_step"]
        cost = self.phases[self._phase_index(number)].flops_per_token
        self.speed.tick(tokens, None if cost is None else cost * tokens / self.ranks.count)  # of this rank's cores
        bar.advance(1, f"loss {line['loss']:.3f}  {line['num_tokens']:,} tokens, {self.speed.note()}  {line['phase']}")
        timing = self.speed.line(last=self.done.train_steps_done == self.starts[-1])
        if log is not None and timing:
            timing["loader_wait_share"] = round(wait_share, 5)
            log.timing({"train_step": number, "num_tokens": line["num_tokens"], **timing})

    def _evaluate_when_due(self, log: TrainLog | None, line: dict[str, Any], tokens_before: int) -> None:
        if self.evaluation is None:
            return
        every = self.evaluation.every_tokens
        if self.done.train_steps_done in self.starts or tokens_before // every != self.done.num_tokens // every:
            with self.speed.paused(), uncompiled(self.model):
                self.model.eval()
                found = self.evaluation.measure(self.model)
                self.model.train()
                settle(self.model)
            if log is not None:
                log.evaluation({key: line[key] for key in ("train_step", "phase", "num_tokens")} | dict(found))

    def _save_when_due(self, tokens_before: int) -> None:
        due, asked = self._due(tokens_before), self._asked()
        if due is not None or asked >= SAVE:
            self._save(due or ("rolling" if asked == SAVE else "emergency"))
        if asked >= STOP and self.done.train_steps_done < self.starts[-1]:
            self.last_checkpoint = self.writer.finished()
            self._stop(asked)

    def _asked(self) -> int:
        """SAVE, STOP, or STOP plus a signal's number: what a signal to one rank or rank 0's clock asks of all."""
        asked = self.clock.asks(self.writer.longest_seconds) if self.ranks.is_main else 0
        return self.ranks.largest(asked if self.stop_signal is None else STOP + self.stop_signal)

    def _stop(self, asked: int) -> None:
        assert self.last_checkpoint is not None
        why = f"by {signal.Signals(asked - STOP).name}" if asked > STOP else f"before {self.clock.limit}"
        raise DiglotError(
            f"stopped {why} after training step {self.done.train_steps_done:,} of {self.starts[-1]:,}; checkpoint "
            f"{self.last_checkpoint.name} is saved. Run the same command again to go on from it."
        )

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
        settle(self.model)
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in self.optimizer.state().items()}
        if self.guard is not None:
            tensors |= {f"guard.{key}": tensor for key, tensor in _as_tensors(self.guard.state()).items()}
        tensors |= {f"log.{key}": tensor for key, tensor in self.streams.state().items()}
        self.last_checkpoint = self.writer.finished() or self.last_checkpoint  # one at a time
        self.clock.saved()
        self.writer.write(
            self.folder,
            checkpoint_name(self.done.num_tokens, self.total_tokens),
            tensors,
            keep_rolling=self.settings.keep_rolling,
            counters=self.done,
            retention=retention,
            order_fingerprint=self.settings.order_fingerprint,
            facts=self._facts(),
        )

    def _description(self) -> dict[str, Any]:
        """run.json: what `diglot watch` shows beside the logs."""
        return {
            "label": self.settings.label,
            "phases": [{"name": phase.name, "num_train_steps": phase.num_train_steps} for phase in self.phases],
            "num_tokens": self.total_tokens,
            "parameters": parameter_counts(self.model.config).total,
            **({"checkpoint_dir": self.settings.checkpoint_dir} if self.settings.checkpoint_dir else {}),
            "peak": f"{self.peak.subject}: {self.peak.text}" if self.peak else None,
            **self._facts(),
        }

    def _facts(self) -> dict[str, Any]:
        """What can change the last bits of a result."""
        return {
            "device": self.backend.device,
            "precision": self.backend.precision,
            "compiled": self.backend.compiled,
            "deterministic": self.backend.deterministic,
            "num_threads": self.backend.num_threads,
            "num_ranks": self.ranks.count,
            "torch": torch.__version__,
        }

    def _log(self) -> contextlib.AbstractContextManager[TrainLog | None]:
        if not self.ranks.is_main:
            return contextlib.nullcontext()
        return TrainLog(self.out, self.done.train_steps_done, self.settings.loggers, self.settings.label)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A first SIGINT or SIGTERM lets the training step finish and saves; a second one acts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return

        def note(number: int, frame: FrameType | None) -> None:
            self.stop_signal = number
            for which, handler in before.items():
                signal.signal(which, handler)
            self.progress.say(
                f"{self.settings.label}: stopping after this training step; a second signal stops at once."
            )

        before = {which: signal.signal(which, note) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def _report(self, seconds: float, tokens: int, wait_share: float) -> TrainReport:
        written = self.ranks.from_main(lambda: read_lines(self.out / TRAIN))
        lines = [line for line in written if not line.get("skipped")]
        losses = [line["loss"] for line in lines]
        tail = losses[-max(1, len(losses) // 10) :]
        return TrainReport(
            num_train_steps=self.done.train_steps_done,
            num_tokens=self.done.num_tokens,
            final_loss=sum(tail) / len(tail),
            phase_losses={line["phase"]: line["loss"] for line in lines},
            resumed_from=self.resumed_from,
            seconds=seconds,
            first_train_step_seconds=self.speed.first_seconds,
            evaluation_seconds=self.speed.paused_seconds,
            tokens_per_second=tokens / (seconds - self.speed.paused_seconds) if tokens else 0.0,
            mfu=self.speed.mfu,
            peak=f"{self.peak.subject}: {self.peak.text}" if self.peak else None,
            resident_peak_bytes=resident_peak_bytes(),
            device_peak_bytes=self._device_peak_bytes() if self.backend.on_gpu else None,
            loader_wait_share=wait_share,
            num_skipped=self.guard.num_skipped if self.guard is not None else 0,
            device=self.backend.device,
            num_threads=self.backend.num_threads,
            precision=self.backend.precision,
            compiled=self.backend.compiled,
            notes=self.backend.notes,
        )


def _read(numbers: Sequence[int | Tensor]) -> list[float]:
    """Numbers of a training step, in float64, with one wait for the device that the tensors lie on."""
    tensors = [number for number in numbers if isinstance(number, Tensor)]
    read = iter(torch.stack([tensor.double() for tensor in tensors]).tolist() if tensors else [])
    return [next(read) if isinstance(number, Tensor) else float(number) for number in numbers]


def _sum(values: Sequence[float]) -> float:
    """One after the other; Python 3.12's own sum carries what is lost, which would be other last bits than 3.11's."""
    return functools.reduce(operator.add, values, 0.0)


def _as_tensors(lists: Mapping[str, list[float]]) -> dict[str, Tensor]:
    return {key: torch.tensor(values, dtype=torch.float64) for key, values in lists.items()}
