"""Ledger records that are no manifests. Cards, tables and the EU summary are pure functions of them.

Which document needs which field: docs/ledger.md. A field that nobody stated is None and stays visible as such.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ACQUISITIONS = ("public", "licensed", "crawl", "user", "synthetic", "other")


@dataclass(frozen=True, kw_only=True)
class SourceRecord:
    """Where documents come from.

    version: of a package or dataset. license: as the source states it, SPDX where the source uses it.
    acquisition: one of ACQUISITIONS, the groups of the EU training-content summary (template of 24 July 2025).
    bytes: UTF-8 bytes of the documents' text; input_bytes: of the files they came from; tokens: once counted.
    period: first and last date that the documents themselves state, ISO 8601.
    crawler, robots_policy: of crawled pages; generator_model: of synthetic ones.
    """

    id: str
    title: str
    version: str | None
    license: str | None
    acquisition: str
    address: str | None
    documents: int
    bytes: int
    input_bytes: int
    tokens: int | None = None
    period: tuple[str, str] | None = None
    crawler: str | None = None
    robots_policy: str | None = None
    generator_model: str | None = None

    def __post_init__(self) -> None:
        assert self.acquisition in ACQUISITIONS, self.acquisition

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
