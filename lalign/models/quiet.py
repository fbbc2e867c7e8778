"""Libraries that speak to the terminal unasked."""

from __future__ import annotations

import os


def silence_libraries() -> None:
    """Keep the progress bars, advice and warnings of libraries off the terminal."""
    import warnings

    from transformers.utils import logging

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
