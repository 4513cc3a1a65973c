"""What was built from what, on which machine, and what it cost: facts of the manifests alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diglot.ledger.artifact import Artifact

MODEL_KINDS = ("pretrain", "finetune", "prefer")


def steps_in_order(artifact: Artifact, *more: Artifact) -> list[Artifact]:
    """Everything the page is about: these artifacts and all they came from, inputs before results, each once."""
    found: dict[str, Artifact] = {}

    def visit(one: Artifact) -> None:
        for above in one.inputs():
            visit(above)
        found.setdefault(str(one.path), one)

    for root in (artifact, *more):
        visit(root)
    return list(found.values())


def lineage(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Nodes and edges of the graph, inputs first. An edge is (input, result), by the nodes' `id`."""
    nodes = [
        {
            "id": _id(a),
            "step": a.manifest.step,
            "kind": a.kind,
            "fingerprint": a.fingerprint,
            "seconds": a.manifest.seconds,
            "bytes": sum(file.bytes for file in a.manifest.files),
            "ended": a.manifest.ended,
        }
        for a in artifacts
    ]
    edges = sorted({(_id(above), _id(a)) for a in artifacts for above in a.inputs()})
    return {"nodes": nodes, "edges": [list(edge) for edge in edges]}


def cost(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Seconds and core-hours to build all of it once, on the machines that did. Core-hours count all cores given."""
    seconds = sum(a.manifest.seconds for a in artifacts)
    core_seconds = sum(a.manifest.seconds * _cores(a) for a in artifacts)
    return {
        "seconds": round(seconds, 1),
        "core_hours": round(core_seconds / 3600, 3),
        "num_cores": sorted({_cores(a) for a in artifacts}),
        "bytes_on_disk": sum(file.bytes for a in artifacts for file in a.manifest.files),
    }


def environment(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Machines, package versions and code versions; more than one where the artifacts were built at different times."""
    hosts: list[dict[str, Any]] = []
    packages: list[dict[str, Any]] = []
    code: list[dict[str, Any]] = []
    for artifact in artifacts:
        for found, facts in (
            (hosts, dict(artifact.manifest.host)),
            (packages, dict(artifact.manifest.environment)),
            (code, dict(artifact.manifest.code)),
        ):
            if facts and facts not in found:
                found.append(facts)
    return {
        "hosts": hosts,
        "packages": packages,
        "code": code,
        "seed": next((a.manifest.seed for a in artifacts if a.manifest.seed is not None), None),
        "started": min(a.manifest.started for a in artifacts),
        "ended": max(a.manifest.ended for a in artifacts),
    }


def _id(artifact: Artifact) -> str:
    return f"{artifact.kind}/{artifact.fingerprint}"


def _cores(artifact: Artifact) -> int:
    return int(artifact.manifest.host.get("num_cores", 1))


def warnings(artifacts: Sequence[Artifact]) -> list[str]:
    """What the steps themselves raised as an alarm or left out, with the step's name."""
    found = []
    for artifact in artifacts:
        counts = artifact.counts
        for key in ("alarms", "warnings"):
            found += [f"{artifact.manifest.step}: {text}" for text in counts.get(key) or []]
        if crashed := counts.get("quarantined"):
            found.append(f"{artifact.manifest.step}: {len(crashed):,} documents crashed a worker and were left out.")
    return found
