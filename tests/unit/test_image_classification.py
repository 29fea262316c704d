"""What image classification decides where the recipe leaves it open."""

from __future__ import annotations

import pytest

from keras_transfer.recipe import Recipe, override
from keras_transfer.tasks import get_task

TASK = get_task("image_classification")
LITE = "efficientnet_lite0"


@pytest.mark.parametrize(
    ("name", "weights", "examples", "tune"),
    [
        pytest.param("", "auto", 628, ("last:4", 3e-4, 5), id="the default network"),
        pytest.param(LITE, "auto", 628, ("last:4", 3e-4, 5), id="the same by its name"),
        pytest.param(f"sample:{LITE}", "auto", 628, ("last:4", 3e-4, 5), id="the same as a sample"),
        pytest.param(LITE, "auto", 50_000, ("last:4", 3e-4, 3), id="many photos"),
        pytest.param(LITE, "auto", 200, ("last:3", 1e-4, 12), id="few photos"),
        pytest.param(LITE, "none", 628, ("all", 1e-4, 8), id="random weights have nothing to keep"),
        pytest.param("resnet50", "auto", 628, ("all", 1e-4, 8), id="another network"),
    ],
)
def test_how_much_is_fine_tuned_follows_from_network_and_data(name, weights, examples, tune):
    recipe = override(Recipe(), {"backbone.name": name, "backbone.weights": weights, "fine_tune.trainable": "auto"})
    found = TASK.resolve(recipe, examples).fine_tune
    assert (found.trainable, found.learning_rate, found.epochs) == tune


def test_what_is_given_stays():
    given = {"fine_tune.epochs": 7, "fine_tune.learning_rate": 1e-5, "fine_tune.trainable": "last:1"}
    found = TASK.resolve(override(Recipe(), given), 628).fine_tune
    assert (found.trainable, found.learning_rate, found.epochs) == ("last:1", 1e-5, 7)
    part = TASK.resolve(override(Recipe(), {"fine_tune.epochs": 7}), 628).fine_tune
    assert (part.trainable, part.learning_rate, part.epochs) == ("last:4", 3e-4, 7)
