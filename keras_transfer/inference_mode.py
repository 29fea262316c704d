"""InferenceMode: a layer that calls a model in inference mode, whatever the model around it is told."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import keras


@keras.saving.register_keras_serializable("keras_transfer")
class InferenceMode(keras.layers.Layer):
    """Calls a model with `training=False`, whatever the model around it is told.

    Inside a functional model `base(x, training=False)` has no effect under `fit`: the outer flag replaces it. Through
    this layer dropout stays off and BatchNormalization keeps its statistics, while gradients flow into whatever is
    trainable (https://github.com/keras-team/keras/issues/20285).

    Args:
        model: a built model. Its layers keep their own `trainable` flags.
        batchnorm: `frozen` as said; `train` passes the caller's `training` on, for dropout and for every
            BatchNormalization that is trainable.
        about: what `Backbone.about` says of the model, so that a saved model can serve as a backbone again.
    """

    def __init__(
        self,
        model: keras.Model,
        batchnorm: Literal["frozen", "train"] = "frozen",
        about: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        settle_names(model)
        self.model = model
        self.batchnorm = batchnorm
        # Kept out of Keras's tracking, which would turn lists and mappings into its own kinds.
        self._about_as_json = json.dumps(about or {})

    @property
    def about(self) -> dict[str, Any]:
        """What `Backbone.about` said of the model; empty for a model that was wrapped by hand."""
        return json.loads(self._about_as_json)

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to make: the model is built."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The model's outputs for its inputs."""
        return self.model(inputs, training=training if self.batchnorm == "train" else False)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Shapes and types of the outputs; a functional model knows its own, and is not run through once more."""
        return self.model.compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        """The layer as plain values."""
        model = keras.saving.serialize_keras_object(self.model)
        return {**super().get_config(), "model": model, "batchnorm": self.batchnorm, "about": self.about}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InferenceMode:
        """The layer that `get_config` described."""
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config["model"])})


def find_wrapper(model: keras.Model) -> InferenceMode | None:
    """The layer of a joined model that calls its backbone, however deep it lies; None if there is none."""
    found = (layer for layer in model._flatten_layers() if isinstance(layer, InferenceMode))
    return next(found, None)


def settle_names(model: keras.Model) -> None:
    """Takes the numbers off the weights that Keras named by itself (`variable_36`, as in ConvNeXt's scales).

    Keras counts them over the whole process; the path of a weight, by which it is frozen, paced, checked and cached,
    must not depend on what was built before.
    """
    for weight in model.weights:
        if re.fullmatch(r"variable_\d+", weight.name):
            weight._path = f"{weight.path.rpartition('/')[0]}/variable".lstrip("/")
            weight._name = "variable"
