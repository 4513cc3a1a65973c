"""Named tokenizer settings, and by name every point in which one differs from what MAP-Neo describes.

MAP-Neo: arXiv 2405.19327, section on the tokenizer, and the trainer's settings inside its released tokenizer.model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from diglot.core.errors import unknown
from diglot.tokenizer.training import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """One point in which a tokenizer is not what its model is."""

    name: str
    here: str
    there: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings under a name. deviations: from MAP-Neo's paper (`map-neo-as-released`: from its file)."""

    about: str
    settings: TrainingSettings
    deviations: tuple[Deviation, ...]


_MAP_NEO = TrainingSettings(vocab_size=64_000, whitespace_pieces=False)

# What no preset can have as it was, because of how this project samples texts and runs a vocabulary.
_ALWAYS = (
    Deviation(
        name="sample",
        here="the training documents, weighted by language and source, up to sample_bytes",
        there="50,000,000 sentences drawn at random from 27 files of code, mathematics and web pages",
        why="their files are not ours; weights: shares, alpha, sources",
    ),
    Deviation(
        name="long_lines",
        here="cut at max_sentence_bytes",
        there="left out by the trainer",
        why="a Chinese page may be one line",
    ),
    Deviation(
        name="threads",
        here="1, texts in the order of the shards",
        there="35, shuffled",
        why="the same texts give the same bytes",
    ),
    Deviation(
        name="special_tokens",
        here="eight, ids 0 to 7; bytes from 8, pieces from 264; </s> ends a document, <pad> pads",
        there="<unk> <s> </s>, bytes from 3, pieces from 259; CLS SEP EOD MASK PAD behind the vocabulary, EOD ends a "
        "document, and padding to a multiple of 128",
        why="the chat template needs its marks; CLS, SEP and MASK have no use in a decoder",
    ),
    Deviation(
        name="space_mark",
        here="a space is a space in the files",
        there="U+2581",
        why="U+2581 itself survives a round trip; ids are the same",
    ),
)

PRESETS: Mapping[str, Preset] = {
    "diglot": Preset(
        about="MAP-Neo's settings with a size for small models, and layout as tokens",
        settings=TrainingSettings(),
        deviations=(
            Deviation(name="vocab_size", here="8,192", there="64,000", why="embeddings of a small model"),
            Deviation(
                name="whitespace_pieces",
                here="runs of spaces, line ends and tabs are pieces",
                there="none: a token per space, bytes for line ends and tabs",
                why="indented code and paragraphs are shorter",
            ),
            *_ALWAYS,
        ),
    ),
    "map-neo": Preset(
        about="MAP-Neo as its paper describes it: 64,000 pieces, no prefix space",
        settings=_MAP_NEO,
        deviations=_ALWAYS,
    ),
    "map-neo-as-released": Preset(
        about="MAP-Neo as its file is: learned with a space before every line (the paper says none)",
        settings=replace(_MAP_NEO, dummy_prefix=True),
        deviations=(
            Deviation(
                name="prefix_at_run_time",
                here="none; as_trained.model adds it, and the report measures that model, too",
                there="a space before every text",
                why="a text must be the concatenation of its pieces",
            ),
            *_ALWAYS,
        ),
    ),
}


def preset(name: str) -> Preset:
    """Raises ConfigError with the nearest name."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]


def overrides(name: str, settings: TrainingSettings) -> dict[str, tuple[Any, Any]]:
    """Setting -> (here, in the preset), where they differ."""
    theirs = asdict(preset(name).settings)
    return {key: (value, theirs[key]) for key, value in asdict(settings).items() if value != theirs[key]}
