"""Comparisons: on which rows, by which words of ours, and with which settings of the peer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"

IN_HALF, IN_A_FIFTH = 2.0, 5.0
"""How much faster we mean to be: the second with fewer than 500 training images."""


@dataclass(frozen=True)
class Comparison:
    """One data set, with both ways to train on it."""

    ours: tuple[str, ...]
    """The words after `keras-transfer fit`; the peer gets the rows that these choose."""
    peer: str
    script: str
    """In this folder; run in the peers' own environment."""
    settings: Mapping[str, tuple[str, ...]]
    """What the peer is tuned over, by name: options of its script. All of them are run with the first seed, and one is
    chosen on the validation rows."""
    goal: float
    limit: int = 0
    """Training examples, as in `ours`; 0 is all."""

    def words(self, limit: int) -> tuple[str, ...]:
        """Ours, with fewer training examples where asked for."""
        least = min(filter(None, (limit, self.limit)), default=0)
        return (*self.ours, *(("--data.limit", str(least)) if least else ()))


_TRAINER = {
    "1e-4, 2 epochs": ("--learning-rate", "1e-4", "--epochs", "2"),
    "1e-4, 2 epochs, grouped by length": ("--learning-rate", "1e-4", "--epochs", "2", "--group-by-length"),
    "5e-5, 3 epochs": ("--learning-rate", "5e-5", "--epochs", "3"),
    "1e-4, 3 epochs, grouped by length": ("--learning-rate", "1e-4", "--epochs", "3", "--group-by-length"),
}


def _fine_tune(*epochs: int, more: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """The default rate (0.002) with several numbers of epochs, and what its rate finder says with the middle one."""
    settings = {f"rate 0.002, {count} epochs": ("--epochs", str(count), *more) for count in epochs}
    middle = epochs[len(epochs) // 2]
    small = ("--epochs", str(middle), "--batch", "32", *more)
    return {
        **settings,
        f"rate 0.002, {middle} epochs, batch 32": small,
        f"rate found, {middle} epochs": ("--epochs", str(middle), "--find-rate", *more),
    }


_DIGITS = (
    "sample:digits",
    "--name",
    "digits",
    "--data.augment",
    "none",
    "--backbone.image_size",
    "96",
)
# Mirrored digits are other signs: fastai's guide turns flips off for them.
_NO_FLIPS = ("--no-flips",)

COMPARISONS: dict[str, Comparison] = {
    "movie_reviews": Comparison(
        ours=(str(RECIPES / "movie_reviews_minilm.py"),),
        peer="Hugging Face Trainer",
        script="hf_movie_reviews.py",
        settings=_TRAINER,
        goal=IN_HALF,
    ),
    "trees": Comparison(
        ours=(str(RECIPES / "trees_efficientnet_lite.py"),),
        peer="fastai fine_tune",
        script="fastai_images.py",
        settings=_fine_tune(4, 8, 16),
        goal=IN_HALF,
    ),
    "trees_400": Comparison(
        ours=(str(RECIPES / "trees_efficientnet_lite.py"),),
        peer="fastai fine_tune",
        script="fastai_images.py",
        settings=_fine_tune(4, 8, 16),
        goal=IN_A_FIFTH,
        limit=400,
    ),
    "digits": Comparison(
        ours=_DIGITS,
        peer="fastai fine_tune",
        script="fastai_images.py",
        settings=_fine_tune(4, 8, 16, more=_NO_FLIPS),
        goal=IN_HALF,
        limit=1_000,
    ),
    "digits_400": Comparison(
        ours=_DIGITS,
        peer="fastai fine_tune",
        script="fastai_images.py",
        settings=_fine_tune(8, 16, 24, more=_NO_FLIPS),
        goal=IN_A_FIFTH,
        limit=400,
    ),
}
