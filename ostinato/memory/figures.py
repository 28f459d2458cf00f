"""Figures of memory tasks."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Complex, Float
from matplotlib.figure import Figure

from ostinato.evaluation.figures import BLUE, GREEN, GREY, RED, WIDTH, styled

MOMENTS = {"before": GREY, "during": GREEN, "after": RED}
MAX_ROWS = 64  # of a picture of traces


@styled
def error_by_delay(table: pd.DataFrame, title: str) -> Figure:
    """The error of a model by the steps of the sequence, beside that of the best constant answer.

    Args:
        table: of `evaluation.error_by_delay`.
        title: of the error.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    rows = table.sort_values("steps")
    axes.plot(rows["steps"], rows["chance"], "--", color=GREY, label="chance")
    axes.plot(rows["steps"], rows["error"], "o-", color=BLUE, label="model")
    axes.set(xlabel="Steps of the sequence", ylabel=title)
    if title.startswith("Mean") and (rows["error"] > 0).all():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title("Error by length and delay")
    axes.legend()
    return figure


@styled
def gradient_norms(norms: Mapping[str, Float[np.ndarray, " step"]]) -> Figure:
    """The norm of the gradient of the last loss by the step that it reaches back to.

    Args:
        norms: before, during and after training, the last step last.
    """
    figure = Figure(figsize=(WIDTH, 3.6))
    axes = figure.subplots()
    for name, values in norms.items():
        back = np.maximum(values[::-1], 1e-30)
        axes.plot(np.arange(len(back)), back, color=MOMENTS[name], label=f"{name} training")
    axes.set_yscale("log")
    axes.set(xlabel="Steps back from the last one", ylabel="Norm of the gradient")
    axes.set_title("Gradient of the last loss with respect to each input")
    axes.legend()
    return figure


@styled
def traces(
    x: Float[np.ndarray, "step feature"], rows: Mapping[str, Float[np.ndarray, "step row"]]
) -> Figure:
    """What happens in a model while it reads a sequence: a picture for each kind of value.

    Args:
        x: the sequence.
        rows: values by name, such as gates or head weights; the first `MAX_ROWS` of each are shown.
    """
    panels = {"input": x, **rows}
    figure = Figure(figsize=(WIDTH, 0.5 + 1.25 * len(panels)))
    for axes, (name, values) in zip(
        np.atleast_1d(figure.subplots(len(panels), 1, sharex=True)), panels.items(), strict=True
    ):
        picture = values.T[:MAX_ROWS]
        low = min(0.0, float(picture.min()))
        high = max(1.0 if low == 0 else -low, float(picture.max()))
        cmap = "Blues" if low == 0 else "RdBu_r"
        image = axes.imshow(picture, aspect="auto", vmin=low, vmax=high, cmap=cmap)
        figure.colorbar(image, ax=axes, pad=0.01)
        axes.set_title(name, fontsize=9)
        axes.grid(visible=False)
        axes.tick_params(labelsize=8)
    axes.set_xlabel("Step")
    return figure


@styled
def reservoir(
    eigenvalues: Complex[np.ndarray, " unit"], capacity: Float[np.ndarray, " delay"]
) -> Figure:
    """The spectrum of a reservoir, and the memory capacity of each delay.

    Args:
        eigenvalues: of the recurrent weights.
        capacity: squared correlation of the input and its readout, from a delay of 1.
    """
    figure = Figure(figsize=(WIDTH, 3.8))
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.3])
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    left.plot(circle.real, circle.imag, color=GREY, lw=1)
    left.plot(eigenvalues.real, eigenvalues.imag, ".", color=BLUE, ms=4)
    left.set_aspect("equal")
    left.set(xlabel="Real part", ylabel="Imaginary part")
    left.set_title("Eigenvalues and the unit circle")
    right.plot(np.arange(1, len(capacity) + 1), capacity, color=BLUE)
    right.set(xlabel="Delay in steps", ylabel="Squared correlation", ylim=(0, 1.02))
    right.set_title(f"Memory capacity {capacity.sum():.1f}")
    return figure
