"""Is this review of a film favourable? GPT-2, a decoder, on TensorFlow Datasets' `imdb_reviews`, 25,000 and 25,000.

    python recipes/imdb_gpt2.py
    keras-transfer fit recipes/imdb_gpt2.py --backbone.sequence_length 256 --data.limit 5000

Both do the same but for the size. A review longer than 512 tokens keeps its start and its end, where opinions stand.
The last token, which has seen all others, speaks for the review.
Expected score, device and time: not measured here: needs the internet, for 84 MB of reviews and 500 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="imdb_gpt2",
    task="text_classification",
    data=DataSpec(source="tfds:imdb_reviews", batch_size=16),
    backbone=BackboneSpec(name="gpt2_base_en", sequence_length=512),
    head=Phase(solver="exact"),
    fine_tune=Phase(epochs=2, learning_rate=3e-5, trainable="all", schedule="linear", weight_decay=0.01),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
