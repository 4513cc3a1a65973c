"""prefer: rounds of direct preference optimisation on the model's own answers, judged by a reward that a program gives.

A round: sample several answers to each prompt from the current policy; score them; keep the best and the worst where
they differ enough; train on these pairs with the round's first policy as the reference (MAP-Neo's scheme, after
Storm-7B, with a programmatic reward instead of a reward model).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from diglot.core.errors import ConfigError, InputError
from diglot.core.seeds import derive_seed
from diglot.steps.context import StepContext, StepKind, input_step, runtime

if TYPE_CHECKING:
    from diglot.corpus.compose.conversation import Conversation
    from diglot.generate.client import Answer, Generator
    from diglot.model.decoder import Decoder
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.preferences import TokenPair
    from diglot.train.rewards import Reward


@dataclass(frozen=True, kw_only=True)
class PreferConfig:
    """from_: the policy to start from. conversations: prompts, and the passages that answers are compared with.

    num_answers: sampled per prompt; the best and the worst become a pair when their rewards differ by `min_margin`.
    beta: of DPO, per nat. sft_weight: see `dpo_objective`.
    language_weight, form_weight, overlap_weight: shares of the reward's parts.
    device: where it trains; `auto` takes a GPU where torch sees one. Answers are sampled on the CPU.
    deterministic: as in `pretrain`.
    num_heldout_prompts: answered greedily before and after, to see whether the reward rises on new questions.
    """

    from_: str = input_step("finetune", "prefer")
    conversations: str = input_step("compose")
    num_rounds: int = 1
    num_prompts: int = 96
    num_answers: int = 4
    max_new_tokens: int = 80
    temperature: float = 0.8
    top_p: float = 0.95
    min_margin: float = 0.1
    beta: float = 0.1
    sft_weight: float = 0.2
    epochs: int = 2
    pairs_per_train_step: int = 8
    learning_rate: float = 1e-4
    language_weight: float = 0.25
    form_weight: float = 0.25
    overlap_weight: float = 0.5
    num_heldout_prompts: int = 48
    max_prompt_tokens: int = 160
    kinds: tuple[str, ...] = field(default=())  # of conversations; empty for all
    device: Literal["auto", "cpu", "cuda"] = runtime("auto")
    deterministic: bool = runtime(True)
    num_threads: int | None = runtime(None)

    def __post_init__(self) -> None:
        for name in ("num_rounds", "num_prompts", "epochs", "pairs_per_train_step", "num_heldout_prompts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it counts from 1.")
        if self.num_answers < 2:
            raise ConfigError(f"num_answers = {self.num_answers}, but a pair needs two. Set it to 4 to 8.")
        if self.temperature <= 0:
            raise ConfigError("temperature = 0 gives the same answer each time, and no pairs. Set it to 0.7 to 1.")
        if not 0 <= self.min_margin < 1:
            raise ConfigError(f"min_margin = {self.min_margin}, but rewards lie in [0, 1].")


class Pair(NamedTuple):
    conversation: Conversation
    chosen: Answer
    rejected: Answer
    chosen_reward: Reward
    rejected_reward: Reward
    tokens: TokenPair


def prefer(config: PreferConfig, context: StepContext) -> dict[str, Any]:
    """Write model/, pairs.parquet, rollouts.jsonl and per round checkpoints and train.jsonl. Counts: per round pairs,
    ties, reward margin, accuracy; held-out reward, its parts and length before and after.
    """
    from diglot.corpus.compose.conversation import read_conversations
    from diglot.generate.sampling import Sampling
    from diglot.model.files import load_model
    from diglot.steps.finetune import save_chat_model
    from diglot.tokenizer.tokenizer import Tokenizer
    from diglot.train.rewards import RewardWeights

    start = time.monotonic()
    weights = RewardWeights(language=config.language_weight, form=config.form_weight, overlap=config.overlap_weight)
    base, composed = context.input().path / "model", context.input("conversations").path
    model, tokenizer = load_model(base), Tokenizer.load(base)
    seed = derive_seed(context.seed, "prefer")
    heldout = _draw(read_conversations(composed, "heldout"), config, config.num_heldout_prompts, tokenizer, seed)
    # New prompts each round, all from one draw, so that no prompt is asked twice.
    prompts = _draw(
        read_conversations(composed, "train"), config, config.num_prompts * config.num_rounds, tokenizer, seed
    )
    sampling = Sampling(temperature=config.temperature, top_p=config.top_p)
    before = _heldout_rewards(_client(model, tokenizer, context), heldout, config, weights)
    rounds, rows = [], []
    for number in range(config.num_rounds):
        asked = prompts[number * config.num_prompts : (number + 1) * config.num_prompts]
        if not asked:
            break
        client = _client(model, tokenizer, context)
        answers = _answers(client, asked, config, sampling, derive_seed(seed, "rollouts", number), context)
        pairs = _pairs(asked, answers, config, weights, tokenizer)
        if not pairs:
            raise InputError(
                f"round {number}: the answers to {len(asked)} prompts differ by less than min_margin = "
                f"{config.min_margin} in reward, so there is nothing to prefer. "
                "Lower min_margin, or raise temperature or num_answers."
            )
        rounds.append(_train_round(number, model, pairs, tokenizer, config, context) | {"prompts": len(asked)})
        rows += [_row(number, pair) for pair in pairs]
    after = _heldout_rewards(_client(model, tokenizer, context), heldout, config, weights)
    _write_pairs(context, rows)
    save_chat_model(model, tokenizer, context.out / "model")
    return {
        "rounds": rounds,
        "pairs": len(rows),
        "heldout_before": before,
        "heldout_after": after,
        "seconds": round(time.monotonic() - start, 1),
    }


def _client(model: Decoder, tokenizer: Tokenizer, context: StepContext) -> Generator:
    """A client for the policy as it is now: its cache is keyed by the weights."""
    from diglot.generate.client import Generator

    return Generator(model.eval(), tokenizer, cache=context.out / "rollouts.jsonl")


def _draw(
    conversations: Sequence[Conversation], config: PreferConfig, count: int, tokenizer: Tokenizer, seed: int
) -> list[Conversation]:
    """The first `count` in a seeded order whose prompt is short enough."""
    from diglot.generate.chat import prompt_ids

    wanted = [c for c in conversations if not config.kinds or c.kind in config.kinds]
    wanted.sort(key=lambda c: derive_seed(seed, "prompt", c.id))
    drawn: list[Conversation] = []
    for conversation in wanted:
        if len(drawn) == count:
            break
        if len(prompt_ids(tokenizer, conversation.prompt)) <= config.max_prompt_tokens:
            drawn.append(conversation)
    if not drawn:
        raise InputError(
            f"no conversation of kinds {config.kinds or 'any'} has a prompt of at most "
            f"{config.max_prompt_tokens} tokens. Raise max_prompt_tokens or change kinds."
        )
    return drawn


def _answers(
    client: Generator,
    asked: Sequence[Conversation],
    config: PreferConfig,
    sampling: Any,
    seed: int,
    context: StepContext,
    n: int | None = None,
) -> list[list[Answer]]:
    n = n or config.num_answers
    with context.progress.bar("prefer: answers", unit="tokens") as bar:
        return client.complete(
            [c.prompt for c in asked],
            n=n,
            max_new_tokens=config.max_new_tokens,
            sampling=sampling,
            seed=seed,
            on_tokens=bar.advance,
        )


def _score(conversation: Conversation, answer: Answer, weights: Any) -> Reward:
    from diglot.train.rewards import reward

    return reward(
        answer.text,
        lang=conversation.lang,
        passage=conversation.answer,
        finished=answer.finish_reason == "stop",
        weights=weights,
    )


def _pairs(
    asked: Sequence[Conversation],
    answers: Sequence[Sequence[Answer]],
    config: PreferConfig,
    weights: Any,
    tokenizer: Tokenizer,
) -> list[Pair]:
    from diglot.generate.chat import END, prompt_ids
    from diglot.train.preferences import TokenPair, best_and_worst

    end = tokenizer.special_id(END)

    def tokens(answer: Answer) -> list[int]:
        return answer.ids + [end] * (answer.finish_reason == "stop")

    pairs = []
    for conversation, given in zip(asked, answers, strict=True):
        rewards = [_score(conversation, answer, weights) for answer in given]
        chosen = best_and_worst([r.total for r in rewards], config.min_margin)
        if chosen is None:
            continue
        best, worst = chosen
        token_pair = TokenPair(prompt_ids(tokenizer, conversation.prompt), tokens(given[best]), tokens(given[worst]))
        if token_pair.chosen and token_pair.rejected:
            pairs.append(Pair(conversation, given[best], given[worst], rewards[best], rewards[worst], token_pair))
    return pairs


def _train_round(
    number: int,
    model: Decoder,
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    config: PreferConfig,
    context: StepContext,
) -> dict[str, Any]:
    """DPO on one round's pairs; `model` is the reference at the start and the policy at the end."""
    from diglot.ledger.fingerprint import fingerprint
    from diglot.train.backend import autocast, chosen_precision
    from diglot.train.conversation_order import ConversationOrder
    from diglot.train.device import chosen_device
    from diglot.train.loop import LoopSettings, Phase, train
    from diglot.train.objectives.dpo import dpo, dpo_objective
    from diglot.train.optimizer_config import OptimizerConfig
    from diglot.train.preferences import collate_pairs, reference_logprobs
    from diglot.train.schedules import ScheduleConfig, schedule

    seed = derive_seed(context.seed, "prefer", "round", number)
    tokens = [pair.tokens for pair in pairs]
    device = chosen_device(config.device)
    precision = chosen_precision("auto", device)
    model.to(device)
    with autocast(device, precision):  # as in training: else the policy would begin beside its reference
        reference = reference_logprobs(model, tokens, pad_id=tokenizer.pad_id)
    order = ConversationOrder([t.length for t in tokens], config.pairs_per_train_step, seed)
    num_train_steps = order.train_steps_per_epoch * config.epochs

    def batch_at(train_step: int) -> list[Any]:
        items = order.items(train_step)
        batch = collate_pairs([tokens[i] for i in items], pad_id=tokenizer.pad_id)
        return [batch | {"reference_chosen": reference.chosen[items], "reference_rejected": reference.rejected[items]}]

    shape = ScheduleConfig(shape="cosine", warmup_share=0.1, floor_share=0.0, start_share=0.0)  # as MAP-Neo's runs
    report = train(
        model,
        phases=[
            Phase(
                name=f"dpo-{number}",
                num_train_steps=num_train_steps,
                batch_at=batch_at,
                schedule=schedule(shape, config.learning_rate, num_train_steps),
                optimizer=OptimizerConfig(beta2=0.999, weight_decay=0.0),
            )
        ],
        objective=dpo_objective(config.beta, config.sft_weight),
        out=context.out / f"round-{number}",
        seed=seed,
        settings=LoopSettings(
            order_fingerprint=fingerprint("pair_order", 1, {"pairs": [p.conversation.id for p in pairs]}, {}, seed),
            label=f"prefer: round {number}",
            precision=precision,
            deterministic=config.deterministic,
            compile="never",  # every batch has its own length
            log_every=1,
            num_threads=config.num_threads,
        ),
        progress=context.progress,
    )
    model.eval()
    with autocast(device, precision):
        policy = reference_logprobs(model, tokens, pad_id=tokenizer.pad_id)
    model.to("cpu")
    margin = config.beta * ((policy.chosen - policy.rejected) - (reference.chosen - reference.rejected))
    return {
        "pairs": len(pairs),
        "train_steps": report.num_train_steps,
        "loss": _mean(dpo(policy, reference, beta=config.beta)),
        "margin": _mean(margin),
        "accuracy": _mean((margin > 0).double()),
        "chosen_logprob_gain": _mean(policy.chosen - reference.chosen),
        "chosen_reward": _mean([p.chosen_reward.total for p in pairs]),
        "rejected_reward": _mean([p.rejected_reward.total for p in pairs]),
        "chosen_tokens": _mean([len(p.chosen.ids) for p in pairs]),
        "rejected_tokens": _mean([len(p.rejected.ids) for p in pairs]),
    }


def _mean(values: Any) -> float:
    import torch

    return round(float(torch.as_tensor(values, dtype=torch.float64).mean()), 4)


def _heldout_rewards(
    client: Generator, heldout: Sequence[Conversation], config: PreferConfig, weights: Any
) -> dict[str, float]:
    """Mean reward, its parts, and mean answer length over greedy answers to the held-out prompts."""
    from diglot.generate.sampling import GREEDY

    answers = client.complete(
        [c.prompt for c in heldout], n=1, max_new_tokens=config.max_new_tokens, sampling=GREEDY, seed=0
    )
    scores = [_score(c, given[0], weights) for c, given in zip(heldout, answers, strict=True)]
    means = {name: sum(getattr(s, name) for s in scores) / len(scores) for name in scores[0]._fields}
    means["tokens"] = sum(len(given[0].ids) for given in answers) / len(answers)
    return {name: round(value, 4) for name, value in means.items()} | {"prompts": len(heldout)}


def _row(number: int, pair: Pair) -> dict[str, Any]:
    return {
        "round": number,
        "conversation": pair.conversation.id,
        "lang": pair.conversation.lang,
        "prompt": json.dumps(pair.conversation.prompt, ensure_ascii=False),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "chosen_reward": pair.chosen_reward._asdict(),
        "rejected_reward": pair.rejected_reward._asdict(),
        "documents": list(pair.conversation.documents),
    }


def _write_pairs(context: StepContext, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    from diglot.corpus.tables import write_table

    parts = pa.struct([(name, pa.float32()) for name in ("language", "form", "overlap", "total")])
    text, ids = pa.string(), pa.list_(pa.string())
    schema = pa.schema(
        [
            ("round", pa.int32()), ("conversation", text), ("lang", text), ("prompt", text), ("chosen", text),
            ("rejected", text), ("chosen_reward", parts), ("rejected_reward", parts), ("documents", ids),
        ]
    )  # fmt: skip
    write_table(context.out / "pairs.parquet", pa.Table.from_pylist(rows, schema=schema))


STEP = StepKind(kind="prefer", version=1, config=PreferConfig, run=prefer, draws_random_numbers=True)
