"""The last words of a run are those that its report has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diglot.core.storage import write_json
from diglot.ledger.artifact import Artifact
from diglot.recipe.closing import closing_lines

CONTINUATION = {"kind": "continuation", "lang": "en", "prompt": "The", "answer": "sea"}
SPAN = {
    "text": "the  sea\nwas calm",
    "num_tokens": 6,
    "documents": [{"id": "d1", "url": None, "source": "novels", "train_steps": [3, 9]}],
}
TRACE = ["trace    [en]: “the sea was calm” stands in novels", "           document d1, read in training steps 3, 9"]
SILENT = ["trace: none of the shown answers repeats six or more tokens of the training text"]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [(CONTINUATION, []), (CONTINUATION | {"spans": []}, SILENT), (CONTINUATION | {"spans": [SPAN]}, TRACE)],
    ids=["no index", "nothing found", "found"],
)
def test_a_trace_is_told_where_the_recipe_has_an_index(
    sample: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    artifact = Artifact(tmp_path)
    write_json(artifact.path / "report.json", {"samples": [sample]})
    *lines, last = closing_lines(artifact)
    assert lines == expected
    assert last.startswith("report: ")
