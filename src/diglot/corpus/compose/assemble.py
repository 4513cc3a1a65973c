"""From the pages of a corpus to its conversations: ask every page, pair translations, drop what is ambiguous.

A pure function of the pages, in whatever order they come. Which split a conversation belongs to follows from the
documents it was made of:
    train     every document is a training document
    heldout   the document that the answer comes from is held out
A translation from a held-out page into a training page is dropped: its answer was read in training, and its question
must not be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from diglot.core.errors import ConfigError
from diglot.core.seeds import derive_seed
from diglot.corpus.compose.conversation import Conversation, ask
from diglot.corpus.compose.pages import Page
from diglot.corpus.compose.phrasing import phrase
from diglot.corpus.compose.questions import AnswerBounds, page_questions
from diglot.corpus.compose.translations import aligned_texts

KINDS = ("heading", "steps", "definition", "purpose", "topics", "title", "translation")
LANGUAGES = ("en", "zh-Hans", "zh-Hant")  # those that questions are written for


@dataclass(frozen=True, kw_only=True)
class SourcePage:
    """A document as composing sees it. key: equal for the translations of a page."""

    id: str
    key: str
    lang: str
    split: str
    page: Page


@dataclass(frozen=True)
class Candidate:
    """A conversation before it is known whether others contradict it. subject: what must have one answer."""

    subject: tuple[str, ...]
    conversation: Conversation


@dataclass(frozen=True, kw_only=True)
class Limits:
    """max_per_kind: conversations of a kind, language and split; which ones is a seeded draw. 0: no limit."""

    kinds: tuple[str, ...] = KINDS
    bounds: AnswerBounds = field(default_factory=AnswerBounds)
    max_per_kind: int = 3000

    def __post_init__(self) -> None:
        if strange := [kind for kind in self.kinds if kind not in KINDS]:
            raise ConfigError(f"no kind of conversation is called {strange}. Known: {', '.join(KINDS)}.")
        if self.max_per_kind < 0:
            raise ConfigError(f"max_per_kind = {self.max_per_kind}, but it counts conversations. Use 0 for no limit.")


def compose_conversations(
    pages: Iterable[SourcePage], limits: Limits, seed: int
) -> tuple[list[Conversation], dict[str, int]]:
    """The conversations, and how many candidates were dropped for which reason."""
    ordered = sorted(pages, key=lambda page: page.id)
    candidates: list[Candidate] = []
    for page in ordered:
        candidates += _questions(page, limits, seed)
    dropped: Counter[str] = Counter()
    if "translation" in limits.kinds:
        candidates += _translations(ordered, seed, dropped)
    clear = _without_contradictions(candidates, dropped)
    return _limited(clear, limits.max_per_kind, seed, dropped), dict(sorted(dropped.items()))


def _questions(page: SourcePage, limits: Limits, seed: int) -> Iterator[Candidate]:
    for question in page_questions(page.page, page.lang, limits.bounds, seed):
        if question.kind in limits.kinds:
            yield Candidate(
                (page.lang, question.kind, question.subject.casefold()),
                Conversation(
                    lang=page.lang,
                    kind=question.kind,
                    messages=ask(question.question, question.answer),
                    documents=(page.id,),
                    split=page.split,
                ),
            )


def _translations(pages: list[SourcePage], seed: int, dropped: Counter[str]) -> Iterator[Candidate]:
    by_key: dict[str, list[SourcePage]] = defaultdict(list)
    for page in pages:
        by_key[page.key].append(page)
    for key in sorted(by_key):
        english = [p for p in by_key[key] if p.lang == "en"]
        chinese = [p for p in by_key[key] if p.lang.startswith("zh")]
        # Several pages of one language at one address are different pages after all, or copies: nothing is certain.
        if len(english) != 1 or len({p.lang for p in chinese}) != len(chinese):
            dropped["no_single_counterpart"] += bool(english and chinese)
            continue
        for other in chinese:
            for aligned in aligned_texts(english[0].page, "en", other.page, other.lang):
                for source, target in ((english[0], other), (other, english[0])):
                    split = _split_of_translation(source, target)
                    if not split:
                        dropped["split_disagrees"] += 1
                        continue
                    yield _translation(source, target, aligned.texts, split, seed)


def _split_of_translation(source: SourcePage, target: SourcePage) -> str:
    if target.split == "heldout":
        return "heldout"
    return "train" if source.split == "train" else ""


def _translation(source: SourcePage, target: SourcePage, texts: dict[str, str], split: str, seed: int) -> Candidate:
    asked, answer = texts[source.lang], texts[target.lang]
    instruction = (source.lang, target.lang)[derive_seed(seed, "instruction", asked) % 2]
    question = phrase(instruction, f"to_{target.lang.partition('-')[0]}", seed, x=asked)
    conversation = Conversation(
        lang=target.lang,
        kind="translation",
        messages=ask(question, answer),
        documents=(source.id, target.id),
        split=split,
    )
    return Candidate((target.lang, "translation", asked.casefold()), conversation)


def _without_contradictions(candidates: list[Candidate], dropped: Counter[str]) -> Iterator[Conversation]:
    """One conversation per subject, and none where no answer has the majority.

    A subject of both splits is a training subject, so that held-out questions are new.
    """
    by_subject: dict[tuple[str, ...], list[Conversation]] = defaultdict(list)
    for candidate in candidates:
        by_subject[candidate.subject].append(candidate.conversation)
    for subject in sorted(by_subject):
        told = by_subject[subject]
        if any(c.split == "train" for c in told):
            told = [c for c in told if c.split == "train"]
        dropped["repeated"] += len(by_subject[subject]) - 1
        answers = Counter(c.answer for c in told)
        best = min(answers, key=lambda answer: (-answers[answer], answer))
        if 2 * answers[best] <= len(told):
            dropped["ambiguous"] += 1
        else:
            yield next(c for c in told if c.answer == best)


def _limited(
    conversations: Iterable[Conversation], max_per_kind: int, seed: int, dropped: Counter[str]
) -> list[Conversation]:
    groups: dict[tuple[str, str, str], list[Conversation]] = defaultdict(list)
    for conversation in conversations:
        groups[conversation.split, conversation.lang, conversation.kind].append(conversation)
    kept: list[Conversation] = []
    for group in groups.values():
        group.sort(key=lambda c: derive_seed(seed, "limit", c.id))
        kept += group[: max_per_kind or len(group)]
        dropped["over_limit"] += max(0, len(group) - (max_per_kind or len(group)))
    return sorted(kept, key=lambda c: c.id)
