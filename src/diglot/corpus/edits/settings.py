"""What a recipe may say of each edit. Loads nothing, so that a recipe is checked quickly."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from diglot.core.errors import ConfigError, unknown
from diglot.corpus.read.declared import language_tag

EDITED_AWAY = "edited_away"  # the rule that drops a document of which the edits leave too little
PII_KINDS = ("email", "phone", "ip", "cn_id", "card", "ssn")
UNITS = ("line", "paragraph")
CHINESE = ("zh-Hans", "zh-Hant")


@dataclass(frozen=True, kw_only=True)
class LinesEdit:
    """Delete lines that are no prose (C4, arXiv 1910.10683, section 2.2; MAP-Neo's unused line-wise filter, D2).

    Every test is off until it is switched on. Fenced and indented code is left alone.
    """

    terminal_punctuation: bool = False  # the line must end with a stop, also a full-width one or an ellipsis
    min_units: int | None = None  # words, or characters in Chinese; C4 has 3 (its later versions 5), MAP-Neo 3
    javascript: bool = False  # the line names javascript
    policy: bool = False  # the line is about cookies, terms of use or a privacy policy
    lorem_ipsum: bool = False
    languages: tuple[str, ...] | None = None  # as identified; null: every language

    def __post_init__(self) -> None:
        if self.min_units is not None and self.min_units < 1:
            raise ConfigError(f"min_units = {self.min_units}, but every line has at least that many. Set 3, or null.")
        if not (self.terminal_punctuation or self.min_units or self.javascript or self.policy or self.lorem_ipsum):
            raise ConfigError(
                "lines has no test switched on. Set terminal_punctuation, min_units, javascript, policy or lorem_ipsum."
            )


@dataclass(frozen=True, kw_only=True)
class SimilarLinesEdit:
    """Delete sentences that repeat an earlier one of the same document (MAP-Neo, arXiv 2405.19327, for Chinese)."""

    max_share: float = 0.1  # edit distance over the longer length; MAP-Neo's value
    min_chars: int = 10  # shorter ones stay: the released code loses dots of ellipses and lines of dialogues
    exact_below: int = 16  # sentences of fewer characters must be equal; MAP-Neo's value
    languages: tuple[str, ...] | None = CHINESE

    def __post_init__(self) -> None:
        if not 0 <= self.max_share <= 0.5:
            raise ConfigError(f"max_share = {self.max_share}, but it must be in [0, 0.5]; MAP-Neo has 0.1.")
        if self.min_chars < 2:
            raise ConfigError(
                f"min_chars = {self.min_chars}, but a single character repeats everywhere. Set 8 or more."
            )
        if self.exact_below < 2:
            raise ConfigError(f"exact_below = {self.exact_below}, but it must be at least 2; MAP-Neo has 16.")


@dataclass(frozen=True, kw_only=True)
class ParagraphsEdit:
    """Delete lines or paragraphs that a document with a smaller id has too.

    The text between blank lines is a paragraph. Blank ones never count as repeated (defect D17 of MAP-Neo's code).
    """

    unit: str = "line"
    min_chars: int = 80  # without the white space at both ends; a short line repeats by chance. MAP-Neo has no minimum
    keep_code: bool = True  # fenced code stays: a page that explains a program needs it
    languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise unknown("unit", self.unit, UNITS)
        if self.min_chars < 1:
            raise ConfigError(f"min_chars = {self.min_chars}, but blank lines must not count. Set 1 or more.")


@dataclass(frozen=True, kw_only=True)
class SubstringsEdit:
    """Delete passages of at least min_bytes bytes that a document with a smaller id has too, whole sentences only.

    150 bytes are 50 Chinese characters or about 25 English words. MAP-Neo has 50 characters, Lee et al. (arXiv
    2107.06499) 50 tokens.
    """

    min_bytes: int = 150
    keep_code: bool = True  # as of paragraphs
    languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.min_bytes < 16:
            raise ConfigError(
                f"min_bytes = {self.min_bytes}, but so short a passage repeats by chance. Set 100 or more."
            )


@dataclass(frozen=True, kw_only=True)
class LinksEdit:
    """Delete addresses that begin with http://, https:// or www., and keep the words of Markdown links."""

    keep_code: bool = True  # inside fences and backticks an address is part of a program
    languages: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PiiEdit:
    """Replace personal data by a placeholder of its kind, `<email>`."""

    kinds: tuple[str, ...] = PII_KINDS
    languages: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in PII_KINDS:
                raise unknown("kind of personal data", kind, PII_KINDS)
        if not self.kinds:
            raise ConfigError(f"kinds is empty, so nothing would be replaced. Name some of {', '.join(PII_KINDS)}.")


@dataclass(frozen=True, kw_only=True)
class FullWidthEdit:
    """Replace full-width letters, digits and spaces by half-width ones; punctuation stays as it is."""

    spaces: bool = True  # U+3000 too, except at the beginning of a line, where it indents a paragraph
    languages: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Edits:
    """The edits of one step; one that is not named is not made. `diglot.corpus.edits.EDITS` describes them."""

    lines: LinesEdit | None = None
    similar_lines: SimilarLinesEdit | None = None
    paragraphs: ParagraphsEdit | None = None
    substrings: SubstringsEdit | None = None
    links: LinksEdit | None = None
    pii: PiiEdit | None = None
    full_width: FullWidthEdit | None = None

    def __post_init__(self) -> None:
        if not self.chosen():
            raise ConfigError(
                f"edits names none. Write for example edits: {{links: {{}}}}; known: "
                f"{', '.join(one.name for one in fields(self))}."
            )
        for name, edit in self.chosen().items():
            _check_languages(name, edit.languages)

    def chosen(self) -> dict[str, Any]:
        """Name -> settings of the edits that are made."""
        return {one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) is not None}


def _check_languages(edit: str, languages: tuple[str, ...] | None) -> None:
    """Raises ConfigError for what no document can be identified as: the edit would leave all of them alone."""
    if languages == ():
        raise ConfigError(f"languages of {edit} is empty, so it would do nothing. Write null for every language.")
    for language in languages or ():
        tag = language_tag(language)
        if tag != language:
            hint = (
                f"Write '{tag}'" if tag else "Write a tag of BCP 47 such as en or zh-Hans, or null for every language"
            )
            raise ConfigError(f"languages of {edit}: no document is identified as '{language}'. {hint}.")
