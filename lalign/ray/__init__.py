"""Jobs on a Ray cluster (extra `ray`): `Align` for pipelines of Ray Data, `run` for whole jobs (docs/clusters.md).

Raises `OptionError` on import where Ray Data is not installed.
"""

from __future__ import annotations

from lalign.ray.extra import check_extra

check_extra()

from lalign.ray.align import Align  # noqa: E402, pyarrow is of the extra
from lalign.ray.job import Cluster, run  # noqa: E402

__all__ = ["Align", "Cluster", "run"]
