"""Twenty kinds of things in photos, each in a box: ResNet50 (ImageNet) on `voc/2007` of TensorFlow Datasets.

    python recipes/voc_detection_resnet50.py
    keras-transfer fit recipes/voc_detection_resnet50.py --fine_tune.epochs 30

Both do the same. Validation and test are the data set's own, 2,510 and 4,952 photos. The objects are large, so that
photos are fitted whole into 512 pixels.
Expected score, device and time: not measured here: needs the internet, for 870 MB of 9,963 photos and 95 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="voc_detection_resnet50",
    task="object_detection",
    data=DataSpec(source="tfds:voc/2007", batch_size=16, augment="flip,crop:0.3,color:0.2"),
    backbone=BackboneSpec(name="resnet50", image_size=512),
    head=Phase(epochs=2, learning_rate=1e-3, clip_norm=5.0),
    fine_tune=Phase(epochs=20, learning_rate=2e-4, trainable="all", clip_norm=5.0, weight_decay=1e-4),
    options={"tile_scale": 0, "stride": 8},
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
