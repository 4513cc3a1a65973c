"""Which program takes the main text out of a source's pages: `diglot`, `resiliparse` or `trafilatura`.

`diglot` (`diglot.corpus.extract`) is the default: it keeps headings, lists, definitions, tables and code apart, which
the steps behind it read (docs/decisions/004-own-main-text-extraction.md), and has the best agreement with gold text in
both languages (docs/benchmarks.md).
`resiliparse` is that library's own main-content mode; `trafilatura` the one to try for articles with much around them,
about a tenth as fast, with a time limit for each page.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from diglot.core.errors import ConfigError
from diglot.core.patterns import most_specific
from diglot.corpus.extract import Extracted, extract, head, parse

R = TypeVar("R")

DEFAULT = "diglot"
TIME_LIMIT_S = 20.0  # of trafilatura for one page; its median is 0.02, but some pages keep it busy for minutes


def extractor(name: str) -> Callable[[str], Extracted]:
    """The function of an extractor. Raises ConfigError where its package is missing."""
    if name == "trafilatura":
        _trafilatura()
    return EXTRACTORS[name]


def extractor_of(source: str, setting: str | Mapping[str, str]) -> str:
    """The extractor of a source: `setting` is one name, or names by glob over the source's name.

    Of several globs the most specific wins; no match is the default.

    >>> extractor_of("news-2024", {"*": "diglot", "news-*": "trafilatura"})
    'trafilatura'
    """
    if isinstance(setting, str):
        return setting
    glob = most_specific(source, setting)
    return DEFAULT if glob is None else setting[glob]


def with_resiliparse(page: str) -> Extracted:
    """resiliparse's main content with its defaults."""
    from resiliparse.extract.html2text import extract_plain_text

    tree = parse(page)
    title, lang = head(tree)
    return Extracted(extract_plain_text(tree, main_content=True), title, lang, 0)


def with_trafilatura(page: str) -> Extracted:
    """trafilatura's text with its defaults; empty with the note `timeout` when it takes longer than TIME_LIMIT_S."""
    library = _trafilatura()
    title, lang = head(parse(page))
    try:
        text = within(TIME_LIMIT_S, library.extract, page)
    except TimeoutError:
        return Extracted("", title, lang, 0, note="timeout")
    return Extracted(text or "", title, lang, 0)


EXTRACTORS: dict[str, Callable[[str], Extracted]] = {
    "diglot": extract,
    "resiliparse": with_resiliparse,
    "trafilatura": with_trafilatura,
}


def within(seconds: float, function: Callable[..., R], *arguments: Any) -> R:
    """`function(*arguments)`. Raises TimeoutError when it takes longer; works in any thread, between two instructions.

    All of it stands in one frame, so that the error of the timer, wherever it arrives, is caught here.
    """
    thread, lock = threading.get_ident(), threading.Lock()
    state = {"open": True, "fired": False}

    def stop() -> None:
        with lock:
            if state["open"]:
                state["fired"] = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_OutOfTime))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    try:
        try:
            timer.start()
            return function(*arguments)
        finally:
            with lock:
                state["open"] = False
            timer.cancel()
            if state["fired"]:  # it arrives within the next instructions; wait for it here and nowhere else
                for _ in range(1000):
                    pass
    except _OutOfTime:
        raise TimeoutError(f"took longer than {seconds:g} s") from None


class _OutOfTime(BaseException):
    """Not an Exception, so that a library that catches everything does not swallow it."""


@functools.cache
def _trafilatura() -> Any:
    try:
        import trafilatura
    except ImportError as error:
        raise ConfigError(
            "extractor: trafilatura needs a package that is not installed. Run pip install 'diglot[precise]', "
            "or leave the extractor at diglot."
        ) from error
    return trafilatura
