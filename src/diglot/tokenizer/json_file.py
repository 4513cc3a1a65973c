"""JSON files of a tokenizer, read with errors that name the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.core.storage import read_json


def read_object(path: Path) -> dict[str, Any]:
    """Raises InputError when the file holds no JSON object."""
    try:
        content = read_json(path)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, "no object")
    return content


def read_if_there(path: Path) -> dict[str, Any]:
    """As `read_object`; empty when there is no such file."""
    return read_object(path) if path.is_file() else {}


def damaged(path: Path, why: object) -> InputError:
    return InputError(
        f"{path} is damaged ({why}). Delete its artifact and run the recipe again, or fetch the model's folder again."
    )
