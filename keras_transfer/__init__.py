"""keras_transfer: point it at labelled data, and get a fine-tuned, measured, served Keras model.

The public names are imported when they are first used (PEP 562), so that `import keras_transfer` and
`keras-transfer --help` wait for no TensorFlow.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras_transfer.export import export
    from keras_transfer.freezing import freeze, unfreeze
    from keras_transfer.own_model import run_phase
    from keras_transfer.recipe import BackboneSpec, DataSpec, DeviceSpec, ExportSpec, Phase, Recipe, RecipeError
    from keras_transfer.run_record import Run
    from keras_transfer.training_loop import History
    from keras_transfer.transfer import build, fit

__version__ = "0.1.0"

# Public name -> the module that holds it.
_HOMES = {
    "BackboneSpec": "recipe",
    "DataSpec": "recipe",
    "DeviceSpec": "recipe",
    "ExportSpec": "recipe",
    "History": "training_loop",
    "Phase": "recipe",
    "Recipe": "recipe",
    "RecipeError": "recipe",
    "Run": "run_record",
    "build": "transfer",
    "export": "export",
    "fit": "transfer",
    "freeze": "freezing",
    "run_phase": "own_model",
    "unfreeze": "freezing",
}

__all__ = [
    "BackboneSpec",
    "DataSpec",
    "DeviceSpec",
    "ExportSpec",
    "History",
    "Phase",
    "Recipe",
    "RecipeError",
    "Run",
    "__version__",
    "build",
    "export",
    "fit",
    "freeze",
    "run_phase",
    "unfreeze",
]


def _find(name: str) -> Any:
    """The public object of that name, from its module."""
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = _find(name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """This package, where `export` stays the function although a submodule has its name.

    The import system binds a submodule to its package under its name as soon as anything imports it; without this
    class `keras_transfer.export(…)` would work or not by what was imported before.
    """

    @property
    def export(self) -> Any:
        return _find("export")

    @export.setter
    def export(self, submodule: types.ModuleType) -> None:
        """Leaves the name with the function; the submodule stays in `sys.modules`."""


sys.modules[__name__].__class__ = _Package
