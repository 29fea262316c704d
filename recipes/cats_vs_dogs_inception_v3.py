"""Cat or dog? InceptionV3 (ImageNet) on TensorFlow Datasets' `cats_vs_dogs`, 23,262 photos.

    python recipes/cats_vs_dogs_inception_v3.py
    keras-transfer fit recipes/cats_vs_dogs_inception_v3.py --data.limit 2000

Both do the same. The data set has no test of its own: 15 % of each class are split off for it, by content.
Expected score, device and time: not measured here: needs the internet, for 786 MB of photos and 88 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="cats_vs_dogs_inception_v3",
    task="image_classification",
    data=DataSpec(source="tfds:cats_vs_dogs", batch_size=32, augment="light"),
    backbone=BackboneSpec(name="inception_v3", weights="imagenet"),
    head=Phase(solver="exact"),
    # The blocks that the Keras transfer-learning guides unfreeze: the two topmost inception modules.
    fine_tune=Phase(epochs=2, learning_rate=1e-5, trainable="from:mixed9", patience=1),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
