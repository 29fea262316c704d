"""Answers in Wikipedia's paragraphs: BERT on TensorFlow Datasets' `squad`, SQuAD 1.1, 87,599 questions.

    python recipes/squad_bert.py
    keras-transfer fit recipes/squad_bert.py --data.limit 10000

Both do the same. SQuAD's own test is not public: 15 % of the training questions are split off for it, by content. SQuAD
2.0, with questions that have no answer: give `--data.source FOLDER`, with train.json and validation.json as published.
Expected score, device and time: not measured here: needs the internet, for 35 MB of questions and 440 MB of weights.
The authors of BERT report 0.808 exact match and 0.885 F1 on the validation questions (base, uncased), three epochs.
"""

from keras_transfer import BackboneSpec, DataSpec, Phase, Recipe
from keras_transfer.cli import fit_script

recipe = Recipe(
    name="squad_bert",
    task="question_answering",
    data=DataSpec(source="tfds:squad", batch_size=32),
    backbone=BackboneSpec(name="bert_base_en_uncased", sequence_length=384),
    head=Phase(epochs=0),
    fine_tune=Phase(epochs=2, learning_rate=5e-5, trainable="all", schedule="linear", weight_decay=0.01),
)

if __name__ == "__main__":
    raise SystemExit(fit_script())
