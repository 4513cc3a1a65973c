"""What a classifier reads and how it is trained. The defaults are MAP-Neo's and DeepSeekMath's values, except for size.

Loads no library: recipes are checked against these classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from diglot.core.errors import ConfigError, unknown

UNITS = ("characters", "white_space")


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """What of a document the classifier reads; `diglot.corpus.classify.text` is the definition.

    units: `characters`: each CJK character and each mark is a token, words are lower-cased. `white_space`: what the
        released pipeline does; a line of Chinese is then one word, so use it only to compare.
    max_chars: the beginning of a document that is read; ours: a page's topic shows early, and speed goes with it.
    """

    units: str = "characters"
    max_chars: int = 2000

    def __post_init__(self) -> None:
        if self.units not in UNITS:
            raise unknown("units", self.units, UNITS, "text")
        if self.max_chars < 1:
            raise ConfigError(f"max_chars = {self.max_chars}, but at least one character must be read.")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Supervised fastText (Joulin et al. 2016), softmax loss. MAP-Neo and DeepSeekMath: 256 dimensions, 2 M buckets.

    epochs: three suit a million examples. With some thousand, 25 epochs and learning_rate 0.5 are needed, or every
        score stays near one half; the step says so.
    num_buckets: slots for n-grams. num_buckets * dimension * 4 bytes is most of the model's size (67 MB here, 2 GB with
        the paper's values).
    """

    epochs: int = 3
    learning_rate: float = 0.1
    dimension: int = 64
    word_ngrams: int = 3
    min_count: int = 3
    num_buckets: int = 1 << 18

    def __post_init__(self) -> None:
        for name in ("epochs", "dimension", "word_ngrams", "min_count", "num_buckets"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, but it must be at least 1.")
        if not 0 < self.learning_rate <= 2:
            raise ConfigError(f"learning_rate = {self.learning_rate}, outside (0, 2]; fastText diverges above.")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A part of the corpus: documents that fit any of `sources`, `hosts`, `url_patterns`, `ids_file`; all without them.

    sources: globs over source names.
    hosts: `example.org` also takes www.example.org and other hosts under it.
    url_patterns: regular expressions, searched for anywhere in the address.
    ids_file: a text file beside the recipe with one document id or address a line.
    max_documents: a random but fixed subset of that many. None: all.
    balance_hosts: with max_documents, each of the H hosts gives at most ceil(max_documents / H), as MAP-Neo's sampling
        of positives does; so no host is the topic.
    """

    sources: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    url_patterns: tuple[str, ...] = ()
    ids_file: str | None = None
    max_documents: int | None = None
    balance_hosts: bool = False

    def __post_init__(self) -> None:
        check_patterns(self.url_patterns, "url_patterns")
        if self.max_documents is not None and self.max_documents < 1:
            raise ConfigError(f"max_documents = {self.max_documents}, but a selection needs at least one document.")
        if self.balance_hosts and self.max_documents is None:
            raise ConfigError("balance_hosts limits what each host gives to max_documents: set max_documents too.")

    @property
    def takes_all(self) -> bool:
        return not (self.sources or self.hosts or self.url_patterns or self.ids_file)


@dataclass(frozen=True, kw_only=True)
class ExpandSettings:
    """When a place belongs to the topic.

    host_share: of a site's pages recalled, above which it is a topic site; both papers: 0.1.
    pattern_share: of the pages under a prefix, from which on it is accepted; ours, where the papers have annotators.
    min_pages: places with fewer say nothing; ours.
    accept_patterns: regular expressions over addresses whose pages join from the first round on.
    deny_patterns: those whose pages never join; stronger than the others.
    """

    host_share: float = 0.1
    pattern_share: float = 0.5
    min_pages: int = 3
    accept_patterns: tuple[str, ...] = ()
    deny_patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("host_share", "pattern_share"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}, outside (0, 1): the papers have 0.1 for hosts.")
        if self.min_pages < 1:
            raise ConfigError(f"min_pages = {self.min_pages}, but it must be at least 1.")
        check_patterns(self.accept_patterns, "accept_patterns")
        check_patterns(self.deny_patterns, "deny_patterns")


def check_patterns(patterns: tuple[str, ...], name: str) -> None:
    """Raises ConfigError for one that is no regular expression."""
    import re

    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"{name}: '{pattern}' is no regular expression ({error}). Escape . ? + ( [ by \\."
            ) from None


def check_label(label: str, what: str) -> str:
    """A label that fastText and a file name can hold. Raises ConfigError otherwise."""
    if not label or any(character.isspace() or character in "/\\\0" for character in label) or label.startswith("."):
        raise ConfigError(
            f"{what} '{label}' cannot be a label: it must have no white space and no slash. Rename it, e.g. "
            f"'{'-'.join(label.replace('/', ' ').split()) or 'other'}'."
        )
    return label
