"""Does an exported model compute what ours does? The same prompts through two engines, token by token.

Two questions for each prompt. Does each engine, continuing greedily by itself, write the same tokens? And on one text,
the prompt with our continuation, where do the logits of every position differ, and is the likeliest token the same one?
The second is the sharper: two continuations that part at one near tie differ in everything behind it.

Shapes: T tokens of a prompt and its continuation, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from diglot.core.errors import DiglotError, InputError
from diglot.evaluate import llama_process
from diglot.generate.engine import generate
from diglot.generate.sampling import GREEDY
from diglot.model.decoder import Decoder

NUM_NEW_TOKENS = 64
# Texts on which tokenizers that are almost equal differ: spaces, line ends, digits, rare characters, names of tokens.
TRICKY = (
    "  two spaces,  and at the end  ",
    "\n\n\tif x:\r\n        return 3.14159\n",
    "2023年5月12日，共计 1,234,567 元。",
    "naïve café — “quotes” … ﬁn",
    "𠮷野家 👩‍👩‍👧 \u00a0\u200b",
    "<s> and <0x0A> and </s>",
)


class Engine(Protocol):
    """A model in some library, and its tokenizer."""

    @property
    def name(self) -> str: ...

    def encode(self, text: str) -> list[int]: ...

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """[T, V]: after each token, what comes next."""
        ...

    def greedy(self, prompts: Sequence[Sequence[int]], num_new: int) -> list[list[int]]:
        """Behind each prompt the likeliest token, again and again; the end of a document does not stop it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much two engines may differ. None does not ask.

    equal_tokens: of every text. Not asked of tokenizers that others made: so that texts come back as they were, ours
        leaves out the space that some put before a text, and Unicode normalisation.
    """

    max_logit_difference: float | None = None
    min_top1_agreement: float = 1.0
    min_greedy_agreement: float | None = None
    equal_tokens: bool = True


HF_LIMITS = Limits(max_logit_difference=1e-4, min_greedy_agreement=1.0)
# Of logits that agree to two digits, one in a hundred near ties may fall the other way; eight bits keep fewer.
GGUF_LIMITS = {
    "f32": Limits(min_top1_agreement=0.99),
    "f16": Limits(min_top1_agreement=0.99),
    "bf16": Limits(min_top1_agreement=0.99),
    "q8_0": Limits(min_top1_agreement=0.95),
}


@dataclass(frozen=True, kw_only=True)
class PromptAgreement:
    """One prompt. first_parting: the new token at which the greedy continuations part; None if they do not."""

    prompt: str
    max_logit_difference: float
    top1_agreement: float
    greedy_agreement: float
    first_parting: int | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two engines over all prompts.

    top1_agreement: share of positions with the same likeliest token, on one text. greedy_agreement: share of new tokens
    that both write at the same place. differently_encoded: texts that the tokenizers do not agree on.
    """

    engine: str
    num_prompts: int
    num_positions: int
    num_new_tokens: int
    max_logit_difference: float
    largest_logit: float
    top1_agreement: float
    greedy_agreement: float
    identical_continuations: int
    differently_encoded: tuple[str, ...]
    worst: PromptAgreement

    def failures(self, limits: Limits) -> list[str]:
        """What lies outside the limits, in sentences."""
        found = []
        if self.differently_encoded and limits.equal_tokens:
            found.append(
                f"{len(self.differently_encoded)} texts get other tokens, first {self.differently_encoded[0]!r}"
            )
        if limits.max_logit_difference is not None and not self.max_logit_difference <= limits.max_logit_difference:
            found.append(f"logits differ by {self.max_logit_difference:.3g}, more than {limits.max_logit_difference:g}")
        if not self.top1_agreement >= limits.min_top1_agreement:
            found.append(
                f"the likeliest token is the same at {self.top1_agreement:.2%} of positions, below "
                f"{limits.min_top1_agreement:.0%}"
            )
        if limits.min_greedy_agreement is not None and not self.greedy_agreement >= limits.min_greedy_agreement:
            found.append(
                f"{self.num_prompts - self.identical_continuations} of {self.num_prompts} greedy continuations part"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load_prompts(path: Path | None) -> list[str]:
    """Our own prompts, or those of a file: one a line, or a JSON object of lists. Raises InputError for none."""
    if path is None:
        text = resources.files("diglot.evaluate").joinpath("agreement_prompts.json").read_text(encoding="utf-8")
        return [prompt for prompts in json.loads(text).values() for prompt in prompts]
    try:
        text = path.read_text(encoding="utf-8")
        found = (
            json.loads(text) if path.suffix == ".json" else {"": [line for line in text.splitlines() if line.strip()]}
        )
        prompts = [prompt for group in found.values() for prompt in group]
    except FileNotFoundError:
        raise InputError(f"no prompts at {path}. Give a text file with one prompt a line.") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no file of prompts ({error}). Give one prompt a line, in UTF-8.") from error
    if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
        raise InputError(f"{path} holds no prompts. Give one prompt a line, in UTF-8.")
    return prompts


def compare(
    ours: Engine,
    theirs: Engine,
    prompts: Sequence[str],
    *,
    context: int,
    num_new: int = NUM_NEW_TOKENS,
    extra_texts: Sequence[str] = TRICKY,
) -> Agreement:
    """Run every prompt through both.

    context: the most tokens that the model reads; prompts are cut and continuations shortened to fit.
    """
    num_new = max(1, min(num_new, context // 2))
    rows, positions, same, largest = [], 0, 0.0, 0.0
    encoded = [ours.encode(prompt)[: context - num_new] for prompt in prompts]
    written = zip(prompts, encoded, ours.greedy(encoded, num_new), theirs.greedy(encoded, num_new), strict=True)
    for prompt, ids, mine, other in written:
        text = [*ids, *mine]
        my_logits, their_logits = ours.logits(text), theirs.logits(text)
        agree = my_logits.argmax(axis=1) == their_logits.argmax(axis=1)
        parting = next((i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b), None)
        rows.append(
            PromptAgreement(
                prompt=prompt,
                max_logit_difference=float(np.abs(my_logits - their_logits).max()),
                top1_agreement=float(agree.mean()),
                greedy_agreement=float(np.mean([a == b for a, b in zip(mine, other, strict=True)])),
                first_parting=parting,
            )
        )
        positions, same = positions + len(agree), same + float(agree.sum())
        largest = max(largest, float(np.abs(my_logits).max()))
    return Agreement(
        engine=theirs.name,
        num_prompts=len(rows),
        num_positions=positions,
        num_new_tokens=num_new,
        max_logit_difference=max(_nan_is_most(row.max_logit_difference) for row in rows),
        largest_logit=largest,
        top1_agreement=same / positions,
        greedy_agreement=float(np.mean([row.greedy_agreement for row in rows])),
        identical_continuations=sum(row.first_parting is None for row in rows),
        differently_encoded=tuple(
            text for text in [*prompts, *extra_texts] if ours.encode(text) != theirs.encode(text)
        ),
        worst=max(rows, key=lambda row: (_nan_is_most(row.max_logit_difference), 1 - row.top1_agreement)),
    )


def table(agreements: Sequence[Agreement]) -> str:
    """For people."""
    lines = [
        f"{'engine':<24} {'largest difference':>18} {'top-1':>8} {'greedy':>8} {'identical':>10} {'tokenizer':>10}"
    ]
    for found in agreements:
        encoded = "equal" if not found.differently_encoded else f"{len(found.differently_encoded)} differ"
        lines.append(
            f"{found.engine:<24} {found.max_logit_difference:>18.3g} {found.top1_agreement:>8.2%} "
            f"{found.greedy_agreement:>8.2%} {found.identical_continuations:>5}/{found.num_prompts:<4} {encoded:>10}"
        )
    return "\n".join(lines)


class OurEngine:
    """The model and tokenizer of this project."""

    name = "diglot"

    def __init__(self, model: Decoder, encode: Callable[[str], list[int]]) -> None:
        self.model, self.encode = model, encode

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self.model(torch.tensor([list(ids)])).logits[0].float().numpy()  # type: ignore[no-any-return]

    def greedy(self, prompts: Sequence[Sequence[int]], num_new: int) -> list[list[int]]:
        written = generate(self.model, prompts, max_new_tokens=num_new, sampling=GREEDY, seed=0, stop_ids=())
        return [completion.ids for completion in written]


class TransformersEngine:
    """A model folder as `AutoModelForCausalLM` and `AutoTokenizer` open it, in float32; their code alone is run."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        transformers = needed("transformers", "export")
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, local_files_only=True
        ).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        self.name = f"transformers {transformers.__version__}"

    def encode(self, text: str) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return list(ids)

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self.model(torch.tensor([list(ids)])).logits[0].float().numpy()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[Sequence[int]], num_new: int) -> list[list[int]]:
        config = self.model.generation_config
        config.eos_token_id = None
        found = []
        for ids in prompts:  # one by one, so that no padding is part of the comparison
            prompt = torch.tensor([list(ids)])
            written = self.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=num_new,
                pad_token_id=config.pad_token_id or 0,
            )
            found.append([int(token) for token in written[0, len(ids) :]])
        return found


class LlamaEngine:
    """A GGUF file in llama.cpp, on the CPU, in a process of its own: llama.cpp aborts on a file that it cannot read.

    Raises: DiglotError when that happens, from any method.
    """

    def __init__(self, path: Path, context: int) -> None:
        self.name = f"llama.cpp ({needed('llama_cpp', 'llama').__version__})"
        self._process = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=llama_process.open_file, initargs=(str(path), context)
        )

    def encode(self, text: str) -> list[int]:
        return self._ask(llama_process.encode, text)  # type: ignore[no-any-return]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self._ask(llama_process.logits, list(ids))  # type: ignore[no-any-return]

    def greedy(self, prompts: Sequence[Sequence[int]], num_new: int) -> list[list[int]]:
        return [self._ask(llama_process.greedy, list(ids), num_new) for ids in prompts]

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._process.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise DiglotError("llama.cpp cannot open or run the file; what it says stands above.") from None


def needed(module: str, extra: str) -> Any:
    """The module, or DiglotError that names the extra it comes with."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.replace("_cpp", "-cpp-python")
        raise DiglotError(
            f"verifying needs the package {package} ({error}): pip install 'diglot[{extra}]'. "
            "Without it the export was not verified, and nothing was kept."
        ) from error


def _nan_is_most(value: float) -> float:
    return float("inf") if np.isnan(value) else value
