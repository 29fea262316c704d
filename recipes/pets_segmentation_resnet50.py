"""Pet, background or outline: ResNet50 (ImageNet) on the masks of TFDS's `oxford_iiit_pet`, 7,349 photos.

    python recipes/pets_segmentation_resnet50.py
    keras-transfer fit recipes/pets_segmentation_resnet50.py --fine_tune.trainable from:conv4

Both do the same. The test is the data set's own, 3,669 photos.
Expected score, device and time: not measured here: needs the internet, for 774 MB of photos and 95 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="pets_segmentation_resnet50",
    task="semantic_segmentation",
    data=DataSpec(source="tfds:oxford_iiit_pet", batch_size=16, augment="medium", resize="pad"),
    backbone=BackboneSpec(name="resnet50", weights="imagenet", image_size=256),
    head=Phase(epochs=3, learning_rate=1e-3),
    fine_tune=Phase(epochs=10, learning_rate=1e-4, trainable="all", patience=3),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
