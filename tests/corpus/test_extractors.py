"""The extractor of each source: chosen by name, recorded, and stopped when it takes too long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

import pytest

from diglot.core.errors import ConfigError
from diglot.corpus import extractors
from diglot.corpus.extractors import extractor, extractor_of, within
from diglot.corpus.ingestion import Entry, row_of
from diglot.corpus.read.record import Record, SourceFile
from diglot.steps.ingest import EXTRACTORS, IngestConfig

PROSE = "This paragraph is long enough to be taken for the text of the page and not for a button, whoever looks at it."
PAGE = f"<html lang=en><head><title>T</title></head><body><article><h1>Head</h1><p>{PROSE}</p><p>{PROSE}</p></article>"


def test_the_names_in_the_config_are_those_of_the_table():
    assert set(EXTRACTORS) == set(extractors.EXTRACTORS)


def test_one_name_holds_for_every_source_and_the_longest_glob_wins_in_any_order():
    assert extractor_of("news", "trafilatura") == "trafilatura"
    globs = {"*": "resiliparse", "news-*": "trafilatura"}
    for setting in (globs, dict(reversed(globs.items()))):
        assert extractor_of("news-1", setting) == "trafilatura"
        assert extractor_of("wiki", setting) == "resiliparse"
    assert extractor_of("wiki", {"news-*": "trafilatura"}) == "diglot"


@pytest.mark.parametrize("name", ["resiliparse", "trafilatura"])
def test_another_extractor_finds_the_text_and_is_named_in_the_meta_of_its_documents(name):
    if name == "trafilatura":
        pytest.importorskip("trafilatura")
    file = SourceFile(source="s", path="p", container="c", format="html")
    record = Record(content=PAGE.encode(), is_html=True)
    entry = Entry(id="0", file=file, content=record)
    row = row_of(entry, record, None, extractor_name=name)
    assert PROSE in row["text"]
    assert f'"extractor": "{name}"' in row["meta"]
    assert row["lang"] == "en"
    assert '"extractor"' not in row_of(entry, record, None)["meta"]


def test_a_misspelled_extractor_is_refused_with_the_nearest_name():
    for setting in ("trafilatur", {"*": "trafilatur"}):
        with pytest.raises(ConfigError, match="did you mean 'trafilatura'"):
            IngestConfig(source="x", extractor=setting)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    extractors._trafilatura.cache_clear()
    with pytest.raises(ConfigError, match=r"pip install 'diglot\[precise\]'"):
        extractor("trafilatura")
    extractors._trafilatura.cache_clear()


def test_a_page_that_keeps_trafilatura_busy_is_given_up_with_a_note(monkeypatch):
    class Busy:
        @staticmethod
        def extract(page):
            while True:
                with contextlib.suppress(Exception):  # as libraries do; the limit must not be caught by it
                    time.sleep(0.001)

    monkeypatch.setattr(extractors, "_trafilatura", lambda: Busy)
    monkeypatch.setattr(extractors, "TIME_LIMIT_S", 0.1)
    found = extractors.with_trafilatura(PAGE)
    assert (found.text, found.note, found.title) == ("", "timeout", "T")


def test_a_time_limit_that_ends_with_its_work_raises_there_or_not_at_all():
    """Work that takes as long as its limit: the timer's error must come as TimeoutError or never, and not later."""
    outcomes = set()
    for number in range(100):
        try:
            outcomes.add(within(0.004, spin, 0.0005 + number % 10 * 3e-3))
        except TimeoutError:
            outcomes.add("late")
    time.sleep(0.02)  # an error that is still to come would come here
    assert outcomes == {"done", "late"}
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def spin(seconds: float) -> str:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return "done"
