"""The plan of a detector: how many objects an input shows, by which its loss is divided."""

from __future__ import annotations

import numpy as np
import pytest

from keras_transfer.vision import box_plan


def boxes(count: int, side: float = 20.0) -> np.ndarray:
    corners = np.random.default_rng(count).uniform(0, 400, (count, 2))
    return np.concatenate([corners, corners + side], 1).astype(np.float32)


def plan(sizes, counts, **options) -> box_plan.BoxPlan:
    return box_plan.plan(sizes, [boxes(count) for count in counts], 100, options)


def test_whole_images_show_all_their_objects():
    assert plan([(100, 100)] * 4, (2, 0, 4, 2), tile_scale=0).typical_objects == 2.0


@pytest.mark.parametrize(("scale", "expected"), [(1, 1.0), (2, 0.25), (0.1, 100.0), (10, 0.1)])
def test_tiles_show_their_share_of_them(scale: float, expected: float):
    # 100 objects on 1,000,000 pixels; a tile of 100 pixels shows 10,000 of these at scale 1, never above all.
    assert plan([(1000, 1000)], [100], tile_scale=scale).typical_objects == pytest.approx(expected)


def test_what_is_given_stays_and_nonsense_is_refused():
    assert plan([(100, 100)], [3], tile_scale=0, typical_objects=7).typical_objects == 7
    with pytest.raises(ValueError, match=r"options.typical_objects: expected a number .* Received: 0"):
        plan([(100, 100)], [3], typical_objects=0)
