"""The tasks, by name. A new task is one module and one line here."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_transfer.tasks.base import Task

# Name -> (module, class, one line for `keras-transfer tasks`); imported when asked for, since they need TensorFlow.
TASKS: dict[str, tuple[str, str, str]] = {
    "image_classification": (
        "keras_transfer.tasks.image_classification",
        "ImageClassification",
        "one or several labels for an image",
    ),
    "object_detection": (
        "keras_transfer.tasks.object_detection",
        "ObjectDetection",
        "a box with a class around every object in an image",
    ),
    "semantic_segmentation": (
        "keras_transfer.tasks.semantic_segmentation",
        "SemanticSegmentation",
        "a class for every pixel of an image",
    ),
    "text_classification": (
        "keras_transfer.tasks.text_classification",
        "TextClassification",
        "one or several labels, or a rating, for a text or a pair of texts",
    ),
    "question_answering": (
        "keras_transfer.tasks.question_answering",
        "QuestionAnswering",
        "the part of a text that answers a question, or that there is none",
    ),
}


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: for an unknown name, with the nearest known one.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1)
        hint = f"Did you mean {near[0]}?" if near else "`keras-transfer tasks` lists them."
        raise ValueError(f"task: expected one of {', '.join(TASKS)}. Received: {name!r}. {hint}")
    module, class_name, _ = TASKS[name]
    return getattr(import_module(module), class_name)()
