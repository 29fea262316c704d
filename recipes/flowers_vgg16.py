"""Five kinds of flowers: VGG16 (ImageNet) on TensorFlow Datasets' `tf_flowers`, 3,670 photos.

    python recipes/flowers_vgg16.py
    keras-transfer fit recipes/flowers_vgg16.py --fine_tune.epochs 2

Both do the same. The data set has no test of its own: 15 % of each class are split off for it, by content.
Expected score, device and time: not measured here: needs the internet, for 218 MB of photos and 59 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="flowers_vgg16",
    task="image_classification",
    data=DataSpec(source="tfds:tf_flowers", batch_size=32, augment="light"),
    backbone=BackboneSpec(name="vgg16", weights="imagenet"),
    head=Phase(solver="exact"),
    # VGG16 has no normalisation layers, so its lower blocks bear no high rate: the last block alone, slowly.
    fine_tune=Phase(epochs=4, learning_rate=2e-5, trainable="from:block5", patience=2),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
