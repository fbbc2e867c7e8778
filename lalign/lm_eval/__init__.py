"""Downstream tasks: importing this registers the model `lalign` with lm-evaluation-harness.

>>> import lalign.lm_eval
>>> lm_eval.simple_evaluate("lalign", {"principle": "hh.txt", "ratio": 2}, tasks=["hellaswag"])

Raises `ImportError` where the extra `lalign[lm-eval]` is not installed.
"""

from __future__ import annotations

try:
    # Its own models are loaded only while the registry is empty, which ours would end.
    import lm_eval.models  # noqa: F401
except ImportError:
    raise ImportError("downstream tasks need lm-evaluation-harness: pip install 'lalign[lm-eval]'") from None

from lalign.lm_eval.model import AlignedLM

__all__ = ["AlignedLM"]
