"""Recipe: overrides by nesting, dots and text; every fault at once."""

from __future__ import annotations

import pytest

from keras_transfer.recipe import Phase, Recipe, RecipeError, override
from keras_transfer.recipe_faults import check


def test_nested_and_dotted_overrides_are_the_same():
    nested = override(Recipe(), {"head": {"epochs": 2}, "fine_tune": {"trainable": "last:2"}})
    dotted = override(Recipe(), {"head.epochs": "2", "fine_tune.trainable": "last:2"})
    assert nested == dotted
    assert nested.head.epochs == 2


def test_text_is_read_as_the_type_of_the_field():
    recipe = override(
        Recipe(),
        {
            "export.enabled": "false",
            "fine_tune.learning_rate": "1e-5",
            "head.epochs": "none",
            "options": '{"hidden": 8}',
        },
    )
    assert recipe.export.enabled is False
    assert recipe.fine_tune.learning_rate == pytest.approx(1e-5)
    assert recipe.head.epochs is None
    assert recipe.options == {"hidden": 8}


def test_unknown_fields_and_wrong_values_come_in_one_error_with_suggestions():
    with pytest.raises(RecipeError) as caught:
        override(Recipe(), {"head.epoch": 1, "fine_tune.epochs": "many", "cache": "featurs", "export.enabled": "maybe"})
    faults = caught.value.faults
    assert len(faults) == 4
    text = str(caught.value)
    assert "did you mean head.epochs" in text
    assert "fine_tune.epochs: expected a whole number" in text
    assert "did you mean features" in text


@pytest.mark.parametrize("value", ["nan", "inf", "1.5", True])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(RecipeError, match="whole number"):
        override(Recipe(), {"head.epochs": value})


def test_check_reports_every_fault_at_once():
    recipe = override(
        Recipe(),
        {
            "data.batch_size": 0,
            "data.validation_share": 0.6,
            "data.test_share": 0.6,
            "head.epochs": 0,
            "fine_tune.epochs": 0,
            "fine_tune.learning_rate": -1.0,
            "fine_tune.keep": "last",
            "fine_tune.patience": 2,
        },
    )
    with pytest.raises(RecipeError) as caught:
        check(recipe)
    assert len(caught.value.faults) == 6  # with the missing source


def test_a_recipe_survives_its_own_json():
    recipe = Recipe(name="x", fine_tune=Phase(epochs=3, trainable="all"), options={"hidden": 4})
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(RecipeError, match="format"):
        Recipe.from_dict({**recipe.to_dict(), "format": 99})


def test_weight_decay_and_label_smoothing_left_open_are_none():
    """0 is a choice, None is the task's; what earlier runs saved has numbers."""
    phase = Phase()
    assert phase.weight_decay is None and phase.label_smoothing is None
    off = override(Recipe(), {"fine_tune.weight_decay": "0", "fine_tune.label_smoothing": 0.0})
    assert (off.fine_tune.weight_decay, off.fine_tune.label_smoothing) == (0.0, 0.0)
    check(override(off, {"data.source": "x"}))
    earlier = Recipe().to_dict()
    earlier["fine_tune"] |= {"weight_decay": 0.0, "label_smoothing": 0.0}
    assert Recipe.from_dict(earlier).fine_tune == off.fine_tune
    for name, value in (("weight_decay", -1.0), ("weight_decay", float("nan")), ("label_smoothing", 1.0)):
        with pytest.raises(RecipeError, match=name):
            check(override(Recipe(), {"data.source": "x", f"head.{name}": value}))
