"""Two engines that compute the same agree fully, and every way to differ shows in a number and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diglot.core.errors import DiglotError, InputError
from diglot.core.storage import write_json
from diglot.evaluate.agreement import GGUF_LIMITS, HF_LIMITS, Agreement, compare, load_prompts, needed, table

VOCAB = 7


class Toy:
    """Logits are a table by the last token; text is digits."""

    name = "toy"

    def __init__(self, shift: float = 0.0, swap: bool = False, offset: int = 0) -> None:
        logits = np.random.default_rng(0).normal(size=(VOCAB, VOCAB)).astype(np.float32)
        logits[3, 2] += shift
        self.table = logits[:, ::-1] if swap else logits
        self.offset = offset

    def encode(self, text: str) -> list[int]:
        return [(ord(c) + self.offset) % VOCAB for c in text]

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self.table[list(ids)]

    def greedy(self, prompts: Sequence[Sequence[int]], num_new: int) -> list[list[int]]:
        texts = [[*ids] for ids in prompts]
        for text in texts * num_new:
            text.append(int(self.table[text[-1]].argmax()))
        return [text[-num_new:] for text in texts]


def agreement(theirs: Toy) -> Agreement:
    return compare(Toy(), theirs, ["123", "345", "0123456"], context=100, num_new=5, extra_texts=())


def test_equal_engines_agree_fully() -> None:
    found = agreement(Toy())
    assert (found.max_logit_difference, found.top1_agreement, found.greedy_agreement) == (0.0, 1.0, 1.0)
    assert (found.identical_continuations, found.num_prompts, found.num_positions) == (3, 3, 3 + 3 + 7 + 15)
    assert found.failures(HF_LIMITS) == []
    assert "3/3" in table([found])


def test_a_small_difference_is_measured_and_too_much_for_float32() -> None:
    found = agreement(Toy(shift=-0.01))
    assert found.max_logit_difference == pytest.approx(0.01, rel=1e-3)
    assert found.failures(GGUF_LIMITS["f16"]) == []
    (failure,) = found.failures(HF_LIMITS)
    assert "logits differ by 0.01" in failure


def test_another_likeliest_token_is_counted_position_by_position() -> None:
    found = agreement(Toy(swap=True))
    assert found.top1_agreement < 0.5
    assert any("likeliest token" in line for line in found.failures(GGUF_LIMITS["f16"]))
    assert any("greedy continuations part" in line for line in found.failures(HF_LIMITS))
    assert found.worst.first_parting is not None


def test_numbers_that_are_none_lie_outside_every_limit() -> None:
    broken = Toy()
    broken.table = broken.table * np.nan
    assert agreement(broken).max_logit_difference == float("inf")
    assert agreement(broken).failures(HF_LIMITS)


def test_another_tokenizer_fails_whatever_the_logits() -> None:
    (failure,) = agreement(Toy(offset=1)).failures(GGUF_LIMITS["f16"])
    assert "3 texts get other tokens, first '123'" in failure


def test_long_prompts_are_cut_to_the_context() -> None:
    found = compare(Toy(), Toy(), ["1" * 500], context=20, extra_texts=())
    assert (found.num_new_tokens, found.num_positions) == (10, 20)


def test_prompts_are_ours_or_those_of_a_file(tmp_path: Path) -> None:
    own = load_prompts(None)
    assert len(own) == 32
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in prompt) for prompt in own) == 16
    (tmp_path / "prompts.txt").write_text("One\n\n二\n", encoding="utf-8")
    assert load_prompts(tmp_path / "prompts.txt") == ["One", "二"]
    write_json(tmp_path / "prompts.json", {"en": ["One"]})
    assert load_prompts(tmp_path / "prompts.json") == ["One"]
    for name, content in (("empty.txt", "\n"), ("list.json", "[1]"), ("numbers.json", '{"en": [1]}')):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match="prompts"):
            load_prompts(tmp_path / name)
    with pytest.raises(InputError, match="no prompts at"):
        load_prompts(tmp_path / "none.txt")


def test_a_missing_library_is_named_with_its_extra() -> None:
    with pytest.raises(DiglotError, match=r"no_such-cpp-python.*pip install 'diglot\[llama\]'"):
        needed("no_such_cpp", "llama")
