"""Results under a fixed seed are those of before; `python tests/golden/renew.py` renews them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from renew import VALUES, compute

TOLERANCES = {"image": 0.02, "augmentation": 0.5, "exact_head": 2e-2, "order_of_examples": 0, "phase": 1e-4}
"""Absolute: grey levels, weights, losses. Processors round differently, and L-BFGS stops a little elsewhere."""


@pytest.fixture(scope="module")
def found() -> dict:
    return compute()


@pytest.mark.parametrize("name", TOLERANCES)
def test_values_are_those_of_before(name: str, found: dict):
    kept = json.loads(VALUES.read_text())[name]
    for part in kept if isinstance(kept, dict) else [None]:
        before, now = (kept, found[name]) if part is None else (kept[part], found[name][part])
        mend = f"{name} {part or ''}: if it was meant to change, run python tests/golden/renew.py and say why"
        np.testing.assert_allclose(now, before, atol=TOLERANCES[name], rtol=0, err_msg=mend)


def test_every_value_is_compared():
    assert set(json.loads(VALUES.read_text())) == set(TOLERANCES)
