"""Class folders of images with fastai's `fine_tune` and timm's EfficientNet-Lite0, on the weights that we use.

    .venv/bin/python fastai_images.py ROWS WEIGHTS OUTPUT --epochs 8 --seed 0

Run in the peers' own environment. ROWS holds train/, validation/ and further splits, WEIGHTS `model.safetensors` and
`config.json` in timm's form. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from fastai.vision.all import (
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    set_seed,
    vision_learner,
)

ARCHITECTURE, EPSILON = "tf_efficientnet_lite0", 1e-3
"""With these weights and this epsilon in its BatchNorm, timm's network has our features to 1e-5."""
SIDE = 96


def main() -> int:
    """Trains, scores and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--epochs", type=int, default=8, help="unfrozen ones; fine_tune does one more before, frozen")
    parser.add_argument("--batch", type=int, default=64, help="default: fastai's")
    parser.add_argument("--find-rate", action="store_true", help="what lr_find suggests, instead of 0.002")
    parser.add_argument("--no-flips", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed, reproducible=True)
    loaders = ImageDataLoaders.from_folder(
        options.rows,
        train="train",
        valid="validation",
        seed=options.seed,
        bs=options.batch,
        item_tfms=Resize(SIDE),
        batch_tfms=aug_transforms(do_flip=not options.no_flips),
    )
    pretrained = json.loads((options.weights / "config.json").read_text())["pretrained_cfg"]
    learner = vision_learner(
        loaders,
        ARCHITECTURE,
        metrics=accuracy,
        path=options.output,
        bn_eps=EPSILON,
        pretrained_cfg_overlay={
            "file": str(options.weights / "model.safetensors"),
            "mean": pretrained["mean"],
            "std": pretrained["std"],
        },
    )
    started = time.perf_counter()
    with learner.no_bar():
        if options.find_rate:
            learner.fine_tune(options.epochs, base_lr=learner.lr_find(show_plot=False).valley)
        else:
            learner.fine_tune(options.epochs)
    seconds = time.perf_counter() - started
    found, examples = {}, {"train": len(loaders.train_ds)}
    for folder in sorted(path for path in options.rows.iterdir() if path.is_dir() and path.name != "train"):
        files = get_image_files(folder)
        part = loaders.test_dl(files, with_labels=True)
        with learner.no_bar():
            found[folder.name] = float(learner.validate(dl=part)[1])
        examples[folder.name] = len(files)
    learner.export(options.output / "export.pkl")
    print(json.dumps({"accuracy": found, "training_seconds": seconds, "examples": examples}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
