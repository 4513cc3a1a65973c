"""An artifact: one step's finished result in the store, and the walk up to what it was made from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diglot.core.errors import InputError
from diglot.ledger.manifest import NAME, Manifest, read_manifest

ASIDE = (
    "against",
    "model",
)  # slots of another corpus: what this one was compared with, or the classifier that judged it


@dataclass(frozen=True)
class Artifact:
    """The folder `store/<kind>/<fingerprint>`. Nothing is ever written to a finished one."""

    path: Path

    @property
    def kind(self) -> str:
        return self.path.parent.name

    @property
    def fingerprint(self) -> str:
        return self.path.name

    @property
    def store(self) -> Path:
        return self.path.parent.parent

    @property
    def is_complete(self) -> bool:
        return (self.path / NAME).exists()

    @functools.cached_property
    def manifest(self) -> Manifest:
        return read_manifest(self.path)

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest.config)

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.manifest.counts)

    def inputs(self) -> list[Artifact]:
        """The artifacts this one was made from, in slot order; what it was only compared with (`ASIDE`) comes last."""
        return [*self._inputs(aside=False), *self._inputs(aside=True)]

    def ancestors(self, *, aside: bool = True) -> Iterator[Artifact]:
        """This artifact, then everything it came from, nearest first, each once; without aside, its own corpus only.

        What a step was only compared with comes after all of that, however near: `upstream("ingest")` is the corpus
        itself and never the older one that `deduplicate` held it against.
        """
        seen: set[Path] = set()
        queue: list[Artifact] = [self]
        others: list[Artifact] = []
        while queue or others:
            artifact = queue.pop(0) if queue else others.pop(0)
            if artifact.path not in seen:
                seen.add(artifact.path)
                yield artifact
                queue.extend(artifact._inputs(aside=False))
                others.extend(artifact._inputs(aside=True) if aside else ())

    def upstream(self, *kinds: str) -> Artifact:
        """The nearest ancestor (or this one) of one of these kinds. Raises InputError when there is none."""
        for artifact in self.ancestors():
            if artifact.kind in kinds:
                return artifact
        raise InputError(
            f"{self.kind} {self.fingerprint} was not made from any {' or '.join(kinds)} step. "
            "Check the `from` of the steps in the recipe."
        )

    def _inputs(self, *, aside: bool) -> list[Artifact]:
        kinds = self.manifest.input_kinds
        slots = {slot: value for slot, value in self.manifest.inputs.items() if (slot in ASIDE) == aside}
        return [Artifact(self.store / kinds[name] / name) for name in _fingerprints(slots)]


def _fingerprints(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _fingerprints(value[key])
    elif value is not None:
        for item in value:
            yield from _fingerprints(item)
