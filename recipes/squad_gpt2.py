"""Answers in Wikipedia's paragraphs: GPT-2, a decoder, on TensorFlow Datasets' `squad`, SQuAD 1.1, 87,599 questions.

    python recipes/squad_gpt2.py
    keras-transfer fit recipes/squad_gpt2.py --data.limit 10000

Both do the same; for the data, see squad_bert.py. The question stands before the context, since a decoder's token sees
only what is before it; "no answer" is the last token. An encoder of the same size is better at this task.
Expected score, device and time: not measured here: needs the internet, for 35 MB of questions and 500 MB of weights.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="squad_gpt2",
    task="question_answering",
    data=DataSpec(source="tfds:squad", batch_size=16),
    backbone=BackboneSpec(name="gpt2_base_en", sequence_length=512),
    head=Phase(epochs=0),
    fine_tune=Phase(epochs=2, learning_rate=5e-5, trainable="all", schedule="linear", weight_decay=0.01),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
