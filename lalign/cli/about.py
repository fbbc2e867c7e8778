"""`lalign --version --verbose`: what a report of a problem has to say."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import lalign

# Those that decide what a run computes, then those of extras.
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow", "matplotlib", "scipy", "peft")


def described() -> Iterator[tuple[str, str]]:
    """Names and what they stand for here. Loads torch."""
    import torch

    from lalign.models.conversion import cache_folder
    from lalign.models.location import default_model

    yield "lalign", lalign.__version__
    yield "python", f"{platform.python_version()} on {platform.platform()}"
    for package in _PACKAGES:
        yield package, _version(package)
    yield "device", _device()
    yield "threads", f"{torch.get_num_threads()}, CPU capability {torch.backends.cpu.get_cpu_capability()}"
    yield "model", default_model()
    yield "cache", str(cache_folder())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()}, {torch.cuda.device_count()} of them)"
    return "mps" if torch.backends.mps.is_available() else "cpu"
