"""Thirty-seven breeds of cats and dogs: ResNet50 (ImageNet) on TensorFlow Datasets' `oxford_iiit_pet`, 7,349 photos.

    python recipes/pets_resnet50.py
    keras-transfer fit recipes/pets_resnet50.py --fine_tune.trainable last:2

Both do the same. The test is the data set's own, 3,669 photos.
Expected score, device and time: not measured here: needs the internet, for 774 MB of photos and 95 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="pets_resnet50",
    task="image_classification",
    data=DataSpec(source="tfds:oxford_iiit_pet", batch_size=32, augment="light"),
    backbone=BackboneSpec(name="resnet50", weights="imagenet"),
    head=Phase(solver="exact"),
    # ImageNet knows the breeds: the head does most of it, and the last stage is fitted to them slowly.
    fine_tune=Phase(epochs=4, learning_rate=3e-5, trainable="from:conv5", patience=2, label_smoothing=0.1),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
