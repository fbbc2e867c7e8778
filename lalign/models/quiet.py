"""Libraries that speak to the terminal unasked."""

from __future__ import annotations

import os
from logging import getLogger


def silence_libraries() -> None:
    """Keep the progress bars, advice and warnings of libraries off the terminal."""
    import warnings

    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    # It tells of each attempt to reach the hub; what comes of them all is told in one line.
    getLogger("huggingface_hub").setLevel("ERROR")
    logging.disable_progress_bar()
