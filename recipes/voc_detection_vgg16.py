"""Twenty kinds of things in photos, each in a box: VGG16 (ImageNet) on `voc/2007` of TensorFlow Datasets.

    python recipes/voc_detection_vgg16.py
    keras-transfer fit recipes/voc_detection_vgg16.py --fine_tune.trainable all

Both do the same. Validation and test are the data set's own, 2,510 and 4,952 photos.
Expected score, device and time: not measured here: needs the internet, for 870 MB of 9,963 photos and 59 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="voc_detection_vgg16",
    task="object_detection",
    data=DataSpec(source="tfds:voc/2007", batch_size=16, augment="flip,crop:0.3,color:0.2"),
    backbone=BackboneSpec(name="vgg16", image_size=384),
    head=Phase(epochs=2, learning_rate=1e-3, clip_norm=5.0),
    # It has no normalization, so that the rate is low; the first two blocks, edges and colours, stay as they are.
    fine_tune=Phase(epochs=16, learning_rate=5e-5, trainable="last:3", clip_norm=5.0),
    options={"tile_scale": 0, "stride": 8},
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
