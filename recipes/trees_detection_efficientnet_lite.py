"""Where is every tree in these aerial photos? EfficientNet-Lite0 (ImageNet) on the `trees_boxes` sample.

    python recipes/trees_detection_efficientnet_lite.py
    keras-transfer fit recipes/trees_detection_efficientnet_lite.py --backbone.weights none

Both do the same but for the weights. The largest photo trains, but for a band of it, on which everything was chosen;
the second photo, of another place, is the test, and a third, small one a further test.

Measured so far: with four epochs of fine-tuning, seed 0, AP50 0.448 on the band and 0.320 on the second photo, in 603
seconds of one core. With the eight of this recipe: not measured yet.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="trees_detection_efficientnet_lite",
    task="object_detection",
    # Seen from above, a tree has no upper side.
    data=DataSpec(source="sample:trees_boxes", batch_size=8, augment="flip,flip_vertical,color:0.5"),
    backbone=BackboneSpec(name="efficientnet_lite0", image_size=256),
    head=Phase(epochs=1, learning_rate=1e-3, clip_norm=5.0),
    fine_tune=Phase(epochs=8, learning_rate=1e-3, trainable="all", clip_norm=5.0),
    # Trees of some 40 pixels, shown twice as large; neighbouring tiles share what a large one takes.
    options={"tile_scale": 2.0, "tile_overlap": 96, "stride": 8},
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
