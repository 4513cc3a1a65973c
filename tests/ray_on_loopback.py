"""Ray clusters for tests: nodes with one CPU on the loopback interface of this machine, and no word to anybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.1"}


@contextmanager
def ray_cluster(num_nodes: int, modules: Path | None = None) -> Iterator[tuple[Any, list[Any]]]:
    """(the cluster, its nodes with the head first). `modules`: a folder that workers import from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # or Ray calls nodes by the address of the network
        if modules:
            patch.setenv("PYTHONPATH", os.pathsep.join([str(modules), os.environ.get("PYTHONPATH", "")]))
        pytest.importorskip("ray")
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster

        patch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # the same, where Ray was imported before
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            yield cluster, [cluster.head_node, *(cluster.add_node(**NODE) for _ in range(num_nodes - 1))]
        finally:
            cluster.shutdown()
