"""The loss curve of a training run as a picture."""

from __future__ import annotations

from pathlib import Path

from rnnx.errors import UsageError
from rnnx.files import writing
from rnnx_models.run_state import History


def loss_curve_path(checkpoint: Path) -> Path:
    """Return where the picture lies: poet.loss.png beside poet.safetensors."""
    return checkpoint.with_name(f"{checkpoint.stem}.loss.png")


def save_loss_curve(
    path: Path, history: History, *, title: str, count_model_nats: float | None = None
) -> None:
    """Draw the loss over the training steps as PNG.

    Args:
        path: the file to write, whole or not at all.
        history: the curve; losses in nats a character.
        title: what was trained.
        count_model_nats: the count model's loss, drawn as the line to beat.

    Raises:
        UsageError: `matplotlib-missing`.
        FileError: as `rnnx.files.writing`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "matplotlib-missing",
            expected="matplotlib, to draw the loss curve",
            found="it is not installed",
            fix="pip install 'rnnx[report]'",
        ) from error
    figure = Figure(figsize=(7.0, 4.2), dpi=120, layout="constrained")  # no pyplot: no global state
    axes = figure.add_subplot()
    axes.plot(history.steps, history.losses, color="#9ecae1", linewidth=1.0, label="training")
    if history.validation_steps:
        axes.plot(
            history.validation_steps,
            history.validation_losses,
            color="#08519c",
            marker="o",
            markersize=3.5,
            label="held-out text",
        )
        best = min(range(len(history.validation_losses)), key=history.validation_losses.__getitem__)
        axes.annotate(
            f"best {history.validation_losses[best]:.3f}",
            (history.validation_steps[best], history.validation_losses[best]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="right",
            color="#08519c",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )
    if count_model_nats is not None:
        axes.axhline(count_model_nats, color="#a63603", linestyle="--", linewidth=1.0, label="count model")
    axes.set(title=title, xlabel="training steps", ylabel="loss (nats a character)")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
