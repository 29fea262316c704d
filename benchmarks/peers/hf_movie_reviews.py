"""Movie reviews with Hugging Face's Trainer, as its text-classification example sets it up, with dynamic padding.

    .venv/bin/python hf_movie_reviews.py ROWS WEIGHTS OUTPUT --learning-rate 1e-4 --epochs 2 --seed 0

Run in the peers' own environment. ROWS holds train.csv, validation.csv and test.csv. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np  # noqa: E402
from transformers import (  # noqa: E402 - reads the variable at import
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

LONGEST = 128
"""Tokens, the example's own default."""


def main() -> int:
    """Trains, scores and saves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_seed(options.seed)
    tables = {path.stem: _read(path) for path in sorted(options.rows.glob("*.csv"))}
    labels = sorted({row["label"] for row in tables["train"]})
    tokenizer = AutoTokenizer.from_pretrained(options.weights)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.weights,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    rows = {name: _tokenize(table, labels, tokenizer) for name, table in tables.items()}
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.output),
            learning_rate=options.learning_rate,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=options.batch,
            per_device_eval_batch_size=options.batch,
            train_sampling_strategy="group_by_length" if options.group_by_length else "random",
            seed=options.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows["train"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_accuracy,
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    accuracy = {name: float(trainer.evaluate(part)["eval_accuracy"]) for name, part in rows.items() if name != "train"}
    trainer.save_model()
    print(
        json.dumps(
            {"accuracy": accuracy, "training_seconds": seconds, "examples": {k: len(v) for k, v in rows.items()}}
        )
    )
    return 0


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _tokenize(table: list[dict[str, str]], labels: list[str], tokenizer: Any) -> list[dict[str, Any]]:
    """Unpadded: the collator pads each batch to its longest text."""
    coded = tokenizer([row["text"] for row in table], truncation=True, max_length=LONGEST)
    return [
        {**{name: values[index] for name, values in coded.items()}, "labels": labels.index(row["label"])}
        for index, row in enumerate(table)
    ]


def _accuracy(found: Any) -> dict[str, float]:
    return {"accuracy": float(np.mean(found.predictions.argmax(-1) == found.label_ids))}


if __name__ == "__main__":
    raise SystemExit(main())
