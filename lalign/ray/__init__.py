"""Jobs on a Ray cluster (extra `ray`): `Align` for pipelines of Ray Data, `run` for whole jobs (docs/clusters.md)."""

from __future__ import annotations

from lalign.ray.align import Align
from lalign.ray.job import Cluster, run

__all__ = ["Align", "Cluster", "run"]
