"""Whether Ray is there."""

from __future__ import annotations

from importlib.util import find_spec

from lalign.errors import OptionError


def check_extra() -> None:
    """Raises `OptionError` where Ray Data is not installed."""
    if any(find_spec(name) is None for name in ("ray", "pyarrow")) or find_spec("ray.data") is None:
        raise OptionError("ray", "needs Ray Data: pip install 'lalign[ray]'")
