"""finetune: the pre-trained model learns to answer, from conversations, with loss on the answers only."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.steps.context import StepContext, StepKind, input_step, runtime
from diglot.train.saving import check_saving, place_of_run

if TYPE_CHECKING:
    from diglot.corpus.compose.conversation import Conversation
    from diglot.generate.chat import RenderedChat
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """from_: the model to start from. conversations: what it learns.

    conversations_per_train_step: the batch. max_tokens: longer conversations are left out, and counted.
    learning_rate: peak, reached after `warmup_share` of the steps, then linear to 0. MAP-Neo's chat phase used about
        2e-5
        for 7 B parameters and 512 x 8,192 tokens a batch; models a thousandth as large take far larger ones.
    num_heldout: held-out conversations whose loss is measured before and after.
    device: where it trains; `auto` takes a GPU where torch sees one.
    deterministic, checkpoint_every_minutes, checkpoint_dir, time_limit_minutes: as in `pretrain`.
    """

    from_: str = input_step("pretrain", "finetune", "import_model")
    conversations: str = input_step("compose")
    num_train_steps: int = 240
    conversations_per_train_step: int = 16
    max_tokens: int = 256
    learning_rate: float = 1e-3
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    num_heldout: int = 128
    device: Literal["auto", "cpu", "cuda"] = runtime("auto")
    deterministic: bool = runtime(True)
    num_threads: int | None = runtime(None)
    checkpoint_every_tokens: int | None = runtime(200_000)
    checkpoint_every_minutes: float | None = runtime(None)
    checkpoint_dir: str | None = runtime(None)
    time_limit_minutes: float | None = runtime(None)

    def __post_init__(self) -> None:
        for name in ("num_train_steps", "conversations_per_train_step", "max_tokens", "num_heldout"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it counts from 1.")
        check_saving(
            checkpoint_dir=self.checkpoint_dir,
            checkpoint_every_minutes=self.checkpoint_every_minutes,
            time_limit_minutes=self.time_limit_minutes,
        )
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate = {self.learning_rate} teaches nothing. Set it above 0.")


def finetune(config: FinetuneConfig, context: StepContext) -> dict[str, Any]:
    """Write model/, checkpoints/ and train.jsonl. Counts: conversations, epochs, speed, held-out loss before and
    after."""
    from diglot.corpus.compose.conversation import read_conversations
    from diglot.ledger.fingerprint import fingerprint
    from diglot.model.files import load_model
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.conversation_order import ConversationOrder
    from diglot.train.device import chosen_device
    from diglot.train.loop import LoopSettings, Phase, train
    from diglot.train.objectives.sft import collate, sft
    from diglot.train.optimizer_config import OptimizerConfig
    from diglot.train.schedules import ScheduleConfig, schedule

    start = time.monotonic()
    base = context.input().path / "model"
    model, tokenizer = load_model(base).to(chosen_device(config.device)), Tokenizer.load(base)
    max_tokens = min(config.max_tokens, model.config.max_seq_len)
    composed = context.input("conversations")
    chats, num_too_long = _render(tokenizer, read_conversations(composed.path, "train"), max_tokens)
    heldout, _ = _render(tokenizer, read_conversations(composed.path, "heldout")[: config.num_heldout], max_tokens)
    seed = derive_seed(context.seed, "finetune")
    order = ConversationOrder([len(chat.ids) for chat in chats], config.conversations_per_train_step, seed)

    def batch_at(train_step: int) -> list[Any]:
        items = [chats[i] for i in order.items(train_step)]
        return [
            collate(
                [chat.ids for chat in items],
                [chat.is_response for chat in items],
                pad_id=tokenizer.pad_id,
                max_tokens=max_tokens,
            )
        ]

    before = heldout_loss(model, heldout, tokenizer.pad_id, max_tokens)
    shape = ScheduleConfig(shape="linear", warmup_share=config.warmup_share, floor_share=0.0, start_share=0.0)
    report = train(
        model,
        phases=[
            Phase(
                name="sft",
                num_train_steps=config.num_train_steps,
                batch_at=batch_at,
                schedule=schedule(shape, config.learning_rate, config.num_train_steps),
                optimizer=OptimizerConfig(weight_decay=config.weight_decay),
            )
        ],
        objective=sft,
        out=context.out,
        seed=seed,
        settings=LoopSettings(
            order_fingerprint=fingerprint(
                "conversation_order",
                1,
                {"composed": composed.fingerprint, "per_step": order.size, "max_tokens": max_tokens},
                {},
                seed,
            ),
            label="finetune",
            deterministic=config.deterministic,
            compile="never",  # every batch has its own length, and a compiled model would be compiled for each
            checkpoint_every_tokens=config.checkpoint_every_tokens,
            keep_rolling=2,
            checkpoint_every_minutes=config.checkpoint_every_minutes,
            checkpoint_dir=place_of_run(config.checkpoint_dir, context.out.name),
            time_limit_minutes=config.time_limit_minutes,
            num_threads=config.num_threads,
        ),
        progress=context.progress,
    )
    after = heldout_loss(model, heldout, tokenizer.pad_id, max_tokens)
    save_chat_model(model, tokenizer, context.out / "model")
    return {
        "conversations": len(chats),
        "conversations_too_long": num_too_long,
        "epochs": round(config.num_train_steps / order.train_steps_per_epoch, 3),
        "train_steps": report.num_train_steps,
        "tokens": report.num_tokens,
        "tokens_per_second": round(report.tokens_per_second),
        "heldout_conversations": len(heldout),
        "heldout_loss_before": before,
        "heldout_loss_after": after,
        "seconds": round(time.monotonic() - start, 1),
    }


def heldout_loss(
    model: Decoder, chats: Sequence[RenderedChat], pad_id: int, max_tokens: int, batch: int = 16
) -> float | None:
    """Mean loss in nats per answer token; None without conversations."""
    import torch

    from diglot.train.device import device_of, on_device
    from diglot.train.objectives.sft import collate, sft

    total, count = 0.0, 0
    ordered = sorted(chats, key=lambda chat: len(chat.ids))
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(ordered), batch):
            rows = ordered[start : start + batch]
            fed = collate([r.ids for r in rows], [r.is_response for r in rows], pad_id=pad_id, max_tokens=max_tokens)
            losses = sft(model, on_device(fed, device_of(model)))
            total, count = total + float(losses.total), count + int(losses.count)
    return round(total / count, 4) if count else None


def save_chat_model(model: Decoder, tokenizer: Tokenizer, folder: Any) -> None:
    """A model folder that also says how to chat with it."""
    from diglot.generate.chat import write_template
    from diglot.model.files import save_model

    tokenizer.save(folder)
    write_template(folder)
    save_model(model, folder)


def _render(
    tokenizer: Tokenizer, conversations: Sequence[Conversation], max_tokens: int
) -> tuple[list[RenderedChat], int]:
    """Rendered conversations that fit, and how many do not."""
    from diglot.generate.chat import render_chats

    rendered = render_chats(tokenizer, [c.messages for c in conversations])
    fitting = [chat for chat in rendered if len(chat.ids) <= max_tokens + 1]
    return fitting, len(rendered) - len(fitting)


STEP = StepKind(kind="finetune", version=1, config=FinetuneConfig, run=finetune, draws_random_numbers=True)
