"""compose: conversations made from the documents themselves, each with the ids of the documents it came from."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from diglot.core.errors import ConfigError, InputError
from diglot.steps.context import StepContext, StepKind, input_step


@dataclass(frozen=True, kw_only=True)
class ComposeConfig:
    """from_: the split corpus. Training documents give training conversations, held-out ones held-out conversations.

    kinds: heading, steps, definition, purpose, topics, title, translation.
    min_units, max_units: bounds of an answer, in words and Chinese characters.
    max_per_kind: conversations of one kind, language and split; 0 for no limit.
    """

    from_: str = input_step("split", "decontaminate")
    kinds: tuple[str, ...] = ("heading", "steps", "definition", "purpose", "topics", "title", "translation")
    min_units: int = 6
    max_units: int = 90
    max_per_kind: int = 3000

    def __post_init__(self) -> None:
        if not 0 < self.min_units <= self.max_units:
            raise ConfigError(
                f"min_units = {self.min_units} and max_units = {self.max_units} leave no length for an answer. "
                "Set 0 < min_units <= max_units."
            )


def compose(config: ComposeConfig, context: StepContext) -> dict[str, Any]:
    """Write conversations.parquet. Counts: conversations by split, language and kind, pages, candidates dropped by
    reason."""
    from diglot.corpus.compose.assemble import LANGUAGES, Limits, SourcePage, compose_conversations
    from diglot.corpus.compose.conversation import write_conversations
    from diglot.corpus.compose.pages import parse_page
    from diglot.corpus.compose.questions import AnswerBounds
    from diglot.corpus.compose.translations import page_key
    from diglot.corpus.splits import SPLITS, split_documents

    start = time.monotonic()
    limits = Limits(
        kinds=config.kinds,
        bounds=AnswerBounds(min_units=config.min_units, max_units=config.max_units),
        max_per_kind=config.max_per_kind,
    )
    pages: list[SourcePage] = []
    skipped: Counter[str] = Counter()
    with context.progress.bar("compose", unit="documents") as bar:
        for split in SPLITS:
            for _, table in split_documents(context.input(), split, ["id", "text", "url", "meta"]):
                for row in table.to_pylist():
                    bar.advance()
                    if row["decided_lang"] not in LANGUAGES:
                        skipped["language"] += 1
                        continue
                    title = json.loads(row["meta"] or "{}").get("title") or ""
                    page = parse_page(row["text"], title)
                    if page is None:
                        skipped["no_heading"] += 1
                        continue
                    pages.append(
                        SourcePage(
                            id=row["id"],
                            key=page_key(row["url"] or row["id"]),
                            lang=row["decided_lang"],
                            split=split,
                            page=page,
                        )
                    )
    conversations, dropped = compose_conversations(pages, limits, context.seed)
    if not any(c.split == "train" for c in conversations):
        raise InputError(
            f"{len(pages)} pages gave no conversation for training (skipped: {dict(skipped)}, dropped: {dropped}). "
            f"Questions are written for {', '.join(LANGUAGES)}; give documents with headings in one of them."
        )
    write_conversations(context.out, conversations)
    return {
        "conversations": len(conversations),
        "pages": len(pages),
        "pages_skipped": dict(sorted(skipped.items())),
        "by_split": dict(sorted(Counter(c.split for c in conversations).items())),
        "by_kind": {
            split: {
                lang: dict(sorted(Counter(c.kind for c in conversations if (c.split, c.lang) == (split, lang)).items()))
                for lang in sorted({c.lang for c in conversations})
            }
            for split in SPLITS
        },
        "dropped": dropped,
        "seconds": round(time.monotonic() - start, 2),
    }


STEP = StepKind(kind="compose", version=1, config=ComposeConfig, run=compose, draws_random_numbers=True)
