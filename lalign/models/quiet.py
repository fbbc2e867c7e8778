"""Libraries that speak to the terminal unasked."""

from __future__ import annotations

import os
from logging import getLogger


def silence_libraries() -> None:
    """Keep the progress bars, advice and warnings of libraries off the terminal, but the bars of downloads.

    Those draw themselves in a terminal alone, and not where TQDM_DISABLE is set.
    """
    import warnings

    from huggingface_hub.utils.tqdm import enable_progress_bars
    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    # It tells of each attempt to reach the hub; what comes of them all is told in one line.
    getLogger("huggingface_hub").setLevel("ERROR")
    logging.disable_progress_bar()  # which is the hub's too
    if not os.environ.get("TQDM_DISABLE"):
        enable_progress_bars()
