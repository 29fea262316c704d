"""Is a phrase about a film favourable? BERT on TensorFlow Datasets' `glue/sst2`, 67,349 phrases.

    python recipes/sst2_bert.py
    keras-transfer fit recipes/sst2_bert.py --backbone.name distil_bert_base_en_uncased

Both do the same but for the backbone. The test of GLUE has no labels: it is split off from the training phrases.
Expected score, device and time: not measured here: needs the internet, for 7 MB of phrases and 440 MB of weights.
The authors of BERT report an accuracy of 0.935 on GLUE's own test (base, uncased), three epochs.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="sst2_bert",
    task="text_classification",
    data=DataSpec(source="tfds:glue/sst2", batch_size=32),
    backbone=BackboneSpec(name="bert_base_en_uncased"),
    head=Phase(solver="exact"),
    fine_tune=Phase(epochs=2, learning_rate=2e-5, trainable="all", schedule="linear", weight_decay=0.01),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
