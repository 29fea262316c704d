"""Joined: backbone and head as one model, and its parts, which share their weights."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from keras_transfer.backbones import Backbone
from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe
from keras_transfer.tasks.base import Task


@dataclass(frozen=True)
class Joined:
    """Backbone and head as one model, and its parts, which share their weights."""

    backbone: Backbone
    encoder: keras.Model
    """Raw inputs to features, in inference mode."""
    head: keras.Model
    """Features to raw outputs."""
    model: keras.Model
    """Raw inputs to raw outputs."""


def join(task: Task, backbone: Backbone, labels: Labels, recipe: Recipe) -> Joined:
    """Backbone and head as one model."""
    encoder = backbone.encoder(task.features)
    features = encoder.output
    head = task.build_head(features, labels, recipe)
    return Joined(backbone, encoder, head, keras.Model(encoder.input, head(features), name=recipe.task))
