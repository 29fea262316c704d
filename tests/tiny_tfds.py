"""Tiny valid data sets under TFDS_DATA_DIR, with the features, splits and versions of the real ones.

The real `tfds:NAME` then finds them prepared, in any process: `write_tiny(folder, "tf_flowers")`, and the environment
variable TFDS_DATA_DIR set to the folder. Photos can be learned (see `conftest.draw_photo`), texts too, and the answers
of questions stand in their contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from conftest import draw_photo

Rows = list[dict[str, Any]]

_GOOD = ("a warm and clever film", "great fun from start to end", "the actors are wonderful", "a joy to watch")
_BAD = ("a dull and clumsy film", "boring from start to end", "the actors are terrible", "a pain to watch")
_PLACES = ("Lisbon", "Nairobi", "Québec", "東京", "Oslo", "Quito", "Riga", "Hanoi", "Accra", "Lima")


def _photos(
    count: int, classes: int, size: int, seed: int, extra: Callable[[int], dict[str, Any]] = lambda _: {}
) -> Rows:
    """Photos of `classes` kinds in turn."""
    pixels = [np.asarray(draw_photo(i % classes, classes, size, [seed, i])) for i in range(count)]
    return [{"image": image, "label": i % classes, **extra(i)} for i, image in enumerate(pixels)]


def _reviews(count: int, column: str, seed: int, labelled: bool = True) -> Rows:
    """Reviews, good (1) and bad (0) in turn."""
    return [
        {column: f"{(_BAD, _GOOD)[i % 2][i // 2 % 4]}, says critic {seed}-{i}", "label": i % 2 if labelled else -1}
        for i in range(count)
    ]


def _flowers(size: int) -> dict[str, Rows]:
    return {"train": _photos(40, 5, size, 1)}


def _pets(size: int) -> dict[str, Rows]:
    def extra(seed: int) -> Callable[[int], dict[str, Any]]:
        def of(index: int) -> dict[str, Any]:
            mask = np.full((size, size, 1), 2, np.uint8)
            quarter = size // 4
            mask[quarter:-quarter, quarter:-quarter] = 1
            mask[quarter, quarter:-quarter] = 3
            box = np.array([0.25, 0.25, 0.75, 0.75], np.float32)
            name = f"pet_{seed}_{index}.jpg"
            return {"file_name": name, "species": index % 2, "segmentation_mask": mask, "head_bbox": box}

        return of

    # All 37 breeds are among the training photos; two of them in the test.
    return {"train": _photos(74, 37, size, 2, extra(2)), "test": _photos(37, 37, size, 3, extra(3))}


def _scenes(count: int, classes: int, size: int, seed: int, flag: str, extra: Callable[[int], dict[str, Any]]) -> Rows:
    """Photos with a bright square each, whose kind tells its class, and on every fourth a second, flagged box."""
    rows: Rows = []
    for index in range(count):
        pixels = np.asarray(draw_photo(0, 8, size, [seed, index])).copy()
        kind, side = index % classes, size // 4 + index % 3
        x, y = (7 * index) % (size - side), (11 * index) % (size - side)
        pixels[y : y + side, x : x + side] = np.asarray(draw_photo(kind, classes, side, [seed, index, 1]))
        box = np.array([y, x, y + side, x + side], np.float32) / size
        objects = [{"bbox": box, "label": kind, flag: False}]
        if index % 4 == 3:
            objects.append({"bbox": np.array([0, 0, 1, 1], np.float32), "label": kind, flag: True})
        rows.append({"image": pixels, "objects": objects, **extra(index)})
    return rows


def _voc(size: int) -> dict[str, Rows]:
    def rows(count: int, seed: int) -> Rows:
        made = _scenes(count, 20, size, seed, "is_difficult", lambda i: {"image/filename": f"{seed}_{i:06d}.jpg"})
        for row in made:
            for one in row["objects"]:
                one |= {"pose": 0, "is_truncated": False}
            row["labels"] = sorted({one["label"] for one in row["objects"]})
            row["labels_no_difficult"] = sorted({o["label"] for o in row["objects"] if not o["is_difficult"]})
        return made

    return {"train": rows(40, 5), "validation": rows(20, 6), "test": rows(20, 7)}


def _coco(size: int) -> dict[str, Rows]:
    def rows(count: int, seed: int) -> Rows:
        extra: Callable[[int], dict[str, Any]] = lambda i: {  # noqa: E731
            "image/filename": f"{seed}{i:011d}.jpg",
            "image/id": 1000 * seed + i,
        }
        made = _scenes(count, 80, size, seed, "is_crowd", extra)
        for number, row in enumerate(made):
            for other, one in enumerate(row["objects"]):
                area = np.prod(one["bbox"][2:] - one["bbox"][:2]) * size**2
                one |= {"id": 10_000 * seed + 10 * number + other, "area": int(area)}
        return made

    unlabelled = [{**row, "objects": []} for row in rows(4, 8)]
    return {"train": rows(80, 1), "validation": rows(20, 2), "test": unlabelled}


def _cats(size: int) -> dict[str, Rows]:
    return {"train": _photos(24, 2, size, 4, lambda index: {"image/filename": f"PetImages/{index}.jpg"})}


def _imdb(size: int) -> dict[str, Rows]:
    unlabelled = _reviews(4, "text", 3, labelled=False)
    return {"train": _reviews(24, "text", 1), "test": _reviews(12, "text", 2), "unsupervised": unlabelled}


def _sst2(size: int) -> dict[str, Rows]:
    parts = {"train": (32, 1, True), "validation": (12, 2, True), "test": (6, 3, False)}
    return {
        name: [{**row, "idx": index} for index, row in enumerate(_reviews(count, "sentence", seed, labelled))]
        for name, (count, seed, labelled) in parts.items()
    }


def _squad(size: int) -> dict[str, Rows]:
    def row(split: str, index: int) -> dict[str, Any]:
        place, people = _PLACES[index % len(_PLACES)], 100 + index
        context = f"Report {index} ({split}): the café in {place} was opened for {people} people."
        questions = (("Where was the café opened?", place), ("For how many people was it opened?", str(people)))
        question, answer = questions[index % 2]
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        return {
            "id": f"{split}{index:04d}",
            "title": place,
            "context": context,
            "question": question,
            "answers": answers,
        }

    return {"train": [row("train", i) for i in range(30)], "validation": [row("validation", i) for i in range(10)]}


WRITERS: dict[str, Callable[[int], dict[str, Rows]]] = {
    "tf_flowers": _flowers,
    "oxford_iiit_pet": _pets,
    "cats_vs_dogs": _cats,
    "voc/2007": _voc,
    "coco/2017": _coco,
    "imdb_reviews": _imdb,
    "glue/sst2": _sst2,
    "squad": _squad,
}
"""By the name after `tfds:`."""


def write_tiny(
    directory: Path, name: str, size: int = 64, change: Callable[[dict[str, Rows]], Any] | None = None
) -> Path:
    """Prepares one data set as if it had been downloaded.

    Args:
        directory: what TFDS_DATA_DIR is then set to.
        name: a key of `WRITERS`.
        size: side of the photos in pixels.
        change: alters the rows by split before they are written.

    Returns:
        The folder of the prepared version.
    """
    import tensorflow_datasets as tfds

    real = tfds.builder(name, data_dir=directory, try_gcs=False)
    rows = WRITERS[name](size)
    if change is not None:
        change(rows)
    folder = Path(real.data_dir)
    folder.mkdir(parents=True)
    features = real.info.features
    infos = [_split_info(tfds, real.name, folder, split, len(part)) for split, part in rows.items()]
    for info, part in zip(infos, rows.values(), strict=True):
        _write_shard(folder / info.filename_template.sharded_filepath(shard_index=0, num_shards=1).name, features, part)
    tfds.folder_dataset.write_metadata(
        data_dir=folder, features=features, split_infos=infos, description="A tiny stand-in.", check_data=False
    )
    return folder


def _split_info(tfds: Any, name: str, folder: Path, split: str, count: int) -> Any:
    """One split in one file, under the name that the library would give it."""
    template = tfds.core.ShardedFileTemplate(
        dataset_name=name, data_dir=folder, split=split, filetype_suffix="tfrecord"
    )
    return tfds.core.SplitInfo(name=split, shard_lengths=[count], num_bytes=1, filename_template=template)


def _write_shard(path: Path, features: Any, rows: Rows) -> None:
    """Writes the rows as the builder's own code would have."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            writer.write(features.serialize_example(features.encode_example(row)))
