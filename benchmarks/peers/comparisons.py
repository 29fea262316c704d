"""Comparisons: on which rows, by which words of ours, and with which settings of the peer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Other ways of ours, by name: further words. They are measured and judged as well."""
    note: str = ""
    """What stands below the verdicts: why a goal was not met, and the measurement that says so."""

    def words(self, limit: int, way: str = "") -> tuple[str, ...]:
        """Ours, or one of `also`, with fewer training examples where asked for."""
        least = min(filter(None, (limit, self.limit)), default=0)
        return (*self.ours, *(self.also[way] if way else ()), *(("--data.limit", str(least)) if least else ()))


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


_WHY_NOT_HALF = """Why not half their time: both train the whole network, so that nothing frozen could be cached.
Profiled (2026-12-01, seed 0), the matrix products of our step take 98 ms of processor time, of 224 ms that the step
takes on two cores; 160 steps of these products alone are 8 s. All that is not fine-tuning (imports, the pass for the
head, scores, the export and its check) takes 32 s, more than half of their whole time. Fewer layers end lower: the
upper four of six 0.815 on validation and 0.840 on test in 71 s; so does one epoch, 0.830 and 0.836 in 61 s."""
_WHY_NOT_A_FIFTH = """Why not a fifth of their time: that is 13 s. Profiled (2026-12-01, seed 0), the head alone takes
4 s for importing TensorFlow, 1.5 s for making the network, 1 s for the plan, 2.5 s for the pass over the frozen layers,
3.5 s for scoring 852 images and 5 s for the export with its check in a fresh process, which fastai does not do."""

_DIGITS = (
    "sample:digits",
    "--name",
    "digits",
    "--data.augment",
    "none",
    "--backbone.image_size",
    "96",
)
_HEAD_ALONE = {"head alone": ("--fine_tune.epochs", "0")}
# Mirrored digits are other signs: fastai's guide turns flips off for them.
_NO_FLIPS = ("--no-flips",)

COMPARISONS: dict[str, Comparison] = {
    "movie_reviews": Comparison(
        ours=(str(RECIPES / "movie_reviews_minilm.py"),),
        peer="Hugging Face Trainer",
        script="hf_movie_reviews.py",
        settings=_TRAINER,
        goal=IN_HALF,
        note=_WHY_NOT_HALF,
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
        note=_WHY_NOT_A_FIFTH,
        also=_HEAD_ALONE,
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
        also=_HEAD_ALONE,
    ),
}
