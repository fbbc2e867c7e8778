"""The distributions of rewards of several outputs, as the paper's Fig. 3, and a table of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from lalign.figures.canvas import (
    COLOURS,
    DASHES,
    About,
    Width,
    counted,
    new_figure,
    save,
    shortened,
    style,
    write_below,
)
from lalign.text import printable, signed

BINS = 30


def normalised(rewards: Mapping[str, Sequence[float]]) -> dict[str, NDArray[np.float64]]:
    """Rewards less the mean of all files together, over their standard deviation; 0 where all are equal."""
    together = np.concatenate([np.asarray(values, dtype=np.float64) for values in rewards.values()])
    centre, spread = (together.mean(), together.std()) if together.size else (0.0, 0.0)
    return {name: (np.asarray(values) - centre) / (spread or 1.0) for name, values in rewards.items()}


def plot_rewards(
    path: Path, rewards: Mapping[str, Sequence[float]], about: About | None = None, width: Width = "full"
) -> None:
    """Draw the density of the normalised rewards of each file, with its mean.

    Args:
        path: a .pdf, .png or .svg file, written over.
        rewards: of each file, by its name.

    Raises as `canvas.save`.
    """
    values = normalised(rewards)
    filled = [each for each in values.values() if each.size]
    edges = np.histogram_bin_edges(np.concatenate(filled), bins=BINS) if filled else np.linspace(-1, 1, BINS + 1)
    caption = (about or About()).line(counted(each.size for each in filled))
    with style():
        figure = new_figure(width, 2.6 + 0.15 * len(values))
        cell = figure.subplots()
        for look, (name, each) in enumerate(values.items()):
            if each.size:
                _distribution(cell, name, each, edges, look)
        cell.set_xlabel("reward, normalised over all files")
        cell.set_ylabel("density")
        cell.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", frameon=False)
        write_below(figure, caption)
        told = "; ".join(f"{name}: mean {signed(each.mean(), 2)}" for name, each in values.items() if each.size)
        save(figure, path, "Rewards", f"Density of the rewards, normalised over all files: {told}. {caption}")


def _distribution(cell: Any, name: str, values: NDArray[np.float64], edges: NDArray[np.float64], look: int) -> None:
    colour, dash = COLOURS[look % len(COLOURS)], DASHES[look % len(DASHES)]
    heights, _ = np.histogram(values, bins=edges, density=True)
    # A dollar sign would begin mathematics.
    label = f"{shortened(name)}: mean {signed(values.mean(), 2)}, n = {values.size}".replace("$", r"\$")
    cell.stairs(heights, edges, color=colour, linestyle=dash, linewidth=1.1, label=label)
    cell.stairs(heights, edges, color=colour, fill=True, alpha=0.12)
    cell.axvline(values.mean(), color=colour, linestyle=dash, linewidth=0.8)


def reward_table(rewards: Mapping[str, Sequence[float]]) -> Table:
    """The rewards of each file: how many, their mean and deviation, and the mean when normalised over all files."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("file", "n", "mean", "deviation", "normalised"):
        table.add_column(heading, justify="left" if heading == "file" else "right")
    for name, values in normalised(rewards).items():
        own = np.asarray(rewards[name], dtype=np.float64)
        figures = [f"{own.mean():.4f}", f"{own.std():.4f}", signed(values.mean(), 3)] if own.size else ["", "", ""]
        table.add_row(printable(name), str(own.size), *figures)
    return table
