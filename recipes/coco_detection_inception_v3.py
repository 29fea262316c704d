"""Eighty kinds of things in photos, each in a box: InceptionV3 (ImageNet) on TensorFlow Datasets' `coco/2017`.

    python recipes/coco_detection_inception_v3.py
    keras-transfer fit recipes/coco_detection_inception_v3.py --data.limit 10000

Both do the same; it is made for one or more GPUs. 118,287 photos are labelled for training and 5,000 for validation.
Expected score, device and time: not measured here: needs the internet, for 25 GB of photos and 88 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="coco_detection_inception_v3",
    task="object_detection",
    data=DataSpec(source="tfds:coco/2017", batch_size=32, augment="flip,crop:0.3,color:0.2"),
    backbone=BackboneSpec(name="inception_v3", image_size=512),
    head=Phase(epochs=1, learning_rate=1e-3, clip_norm=5.0),
    fine_tune=Phase(epochs=12, learning_rate=3e-4, trainable="all", clip_norm=5.0, weight_decay=1e-4),
    options={"tile_scale": 0, "stride": 8},
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
