"""Object detection as its user meets it: pictures with boxes in, boxes in the pixels of the picture out."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_transfer import backbones, evaluation, phases
from keras_transfer import recipe as recipes
from keras_transfer.backbones import Backbone
from keras_transfer.data.box_inputs import visible
from keras_transfer.data.decoded_photos import DecodedPhotos
from keras_transfer.data.pipeline import evaluation_batches, training_batches
from keras_transfer.data.records import Record
from keras_transfer.folding import live
from keras_transfer.joined import Joined, join
from keras_transfer.labels import Labels
from keras_transfer.recipe import Recipe
from keras_transfer.tasks.object_detection import ObjectDetection
from keras_transfer.training_loop import Watch
from keras_transfer.vision import box_plan
from keras_transfer.vision.box_answers import MOST
from keras_transfer.vision.detector import IGNORED, PADDED

SIDE = 64
COLOURS = {"blue": (40, 60, 230), "red": (230, 50, 40)}
TASK = ObjectDetection()
LABELS = Labels(tuple(COLOURS))


def scene(folder: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE), count: int = 2, side: int = 18) -> Record:
    """A grey, noisy picture (height, width) with coloured squares that do not touch."""
    random = np.random.default_rng(seed)
    pixels = random.integers(90, 150, (*size, 3), np.uint8)
    boxes: list[tuple[int, ...]] = []
    labels = []
    for _ in range(1_000):
        if len(boxes) == count:
            break
        extent = int(random.integers(side * 2 // 3, side * 4 // 3))
        x, y = int(random.integers(0, size[1] - extent)), int(random.integers(0, size[0] - extent))
        apart = all(x + extent + 4 < b[0] or b[2] + 4 < x or y + extent + 4 < b[1] or b[3] + 4 < y for b in boxes)
        if apart:
            label = list(COLOURS)[random.integers(2)]
            pixels[y : y + extent, x : x + extent] = COLOURS[label]
            boxes.append((x, y, x + extent, y + extent))
            labels.append(label)
    path = folder / f"scene_{seed}_{size[0]}x{size[1]}.png"
    Image.fromarray(pixels).save(path)
    content = seed.to_bytes(8, "big") + size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big")
    fields = {"image": str(path), "boxes": tuple(boxes), "labels": tuple(labels), "classes": tuple(COLOURS)}
    return Record(path.name, fields, str(path), content)


def small_network() -> Backbone:
    """A network of our own with maps of stride 4, 8 and 16."""
    layers = keras.layers
    inputs = x = keras.Input((SIDE, SIDE, 3))
    for number, channels in enumerate((12, 24, 32, 32)):
        x = layers.Conv2D(channels, 3, 2, "same", activation="relu", name=f"step{number}_conv")(x)
    return backbones.wrap(keras.Model(inputs, x, name="small"), preprocess="tf")


def recipe_with(**changes: Any) -> Recipe:
    recipe = Recipe(name="scenes", task=TASK.name, data=recipes.DataSpec(source="made", batch_size=8))
    return recipes.override(recipe, changes)


def planned(recipe: Recipe, backbone: Backbone, train: list[Record]) -> Recipe:
    return TASK.fit_inputs(TASK.resolve(recipe, len(train)), backbone, train)[0]


@dataclass
class Trained:
    """A detector that knows coloured squares."""

    joined: Joined
    recipe: Recipe
    folder: Path

    def predictions(self, records: list[Record], recipe: Recipe | None = None) -> list[dict[str, Any]]:
        recipe = recipe or self.recipe
        examples = TASK.examples(records, LABELS, self.joined.backbone, recipe, False)
        predictor = evaluation.Predictor(self.joined.model, TASK.loss(LABELS, recipe, None))
        return predictor(TASK, examples, LABELS, 8)[0]

    def served(self, records: list[Record], recipe: Recipe | None = None) -> dict[str, np.ndarray]:
        serving = TASK.serving(live(self.joined.model), LABELS, recipe or self.recipe)
        outputs = serving.signatures["serving_default"](**TASK.request(records))
        return {name: value.numpy() for name, value in outputs.items()}

    @property
    def tiled(self) -> Recipe:
        return replace(self.recipe, options={**self.recipe.options, "tile_scale": 1.0, "tile_overlap": 24})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("scenes")
    train = [scene(folder, seed) for seed in range(48)]
    backbone = small_network()
    recipe = recipe_with(**{"data.augment": "flip", "fine_tune.epochs": 40, "fine_tune.learning_rate": 4e-3})
    recipe = planned(recipe, backbone, train)
    joined = join(TASK, backbone, LABELS, recipe)
    examples = TASK.examples(train, LABELS, backbone, recipe, True)
    loss, strategy = TASK.loss(LABELS, recipe, None), tf.distribute.get_strategy()
    arguments = (TASK, LABELS, recipe, recipe.fine_tune, examples, None, loss, strategy, Watch())
    phases.train_joined(joined.model, backbone, *arguments)
    return Trained(joined, recipe, folder)


def scores(predictions, records, labels=LABELS) -> dict[str, Any]:
    return TASK.score(predictions, TASK.references(records, labels), labels)


def test_it_finds_squares_in_pictures_that_it_has_not_seen(trained):
    records = [scene(trained.folder, seed) for seed in range(100, 112)]
    found = scores(trained.predictions(records), records)
    assert found["ap50"] > 0.8 and set(found["ap_by_class"]) == set(COLOURS)


def test_the_export_answers_as_training_scored(trained):
    records = [scene(trained.folder, seed, size) for seed, size in enumerate([(64, 64), (120, 90), (50, 200)])]
    predictions, outputs = trained.predictions(records), trained.served(records)
    again = TASK.from_outputs(outputs, LABELS)
    assert sum(len(prediction["boxes"]) for prediction in predictions) > 3
    for prediction, answer in zip(predictions, again, strict=True):
        assert answer["boxes"] == pytest.approx(prediction["boxes"], abs=1e-2)
        assert answer["scores"] == pytest.approx(prediction["scores"], abs=1e-4)
        assert answer["classes"].tolist() == prediction["classes"].tolist()


def test_what_a_publish_compares_begins_what_the_export_answers(trained):
    records = [scene(trained.folder, seed) for seed in range(3)]
    expected, outputs = TASK.expected(trained.predictions(records), LABELS), trained.served(records)
    assert expected["scores"].shape[0] == 3 and 1 <= expected["scores"].shape[1] <= 10
    width = expected["scores"].shape[1]
    assert outputs["scores"][:, :width] == pytest.approx(expected["scores"], abs=1e-4)
    assert outputs["best_score"] == pytest.approx(expected["best_score"], abs=1e-4)


def test_a_large_photo_is_looked_at_in_tiles_and_the_export_agrees(trained):
    large = [scene(trained.folder, 7, (300, 440), count=40), scene(trained.folder, 8, (40, 150), count=4)]
    predictions, outputs = trained.predictions(large, trained.tiled), trained.served(large, trained.tiled)
    whole = scores(trained.predictions(large), large)
    found = scores(predictions, large)
    assert found["ap50"] > 0.75 and found["ap50"] > whole["ap50"] + 0.1
    for prediction, answer in zip(predictions, TASK.from_outputs(outputs, LABELS), strict=True):
        assert answer["boxes"] == pytest.approx(prediction["boxes"], abs=0.05)
        assert answer["scores"] == pytest.approx(prediction["scores"], abs=1e-3)


def test_no_object_of_a_large_photo_is_found_twice(trained):
    record = scene(trained.folder, 7, (230, 300), count=30)
    found = trained.predictions([record], trained.tiled)[0]
    sure = found["boxes"][found["scores"] > 0.3]
    middles = (sure[:, :2] + sure[:, 2:]) / 2
    for box in record.fields["boxes"]:
        inside = (middles >= box[:2]) & (middles <= box[2:])
        assert inside.all(1).sum() <= 1


@pytest.mark.slow
def test_boxes_are_in_the_pixels_of_a_photo_that_lies_on_its_side(trained):
    record = scene(trained.folder, 40, (128, 96), side=34)
    upright = Image.open(record.fields["image"])
    path = trained.folder / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    upright.rotate(90, expand=True).save(path, quality=97, exif=exif)
    turned = replace(record, fields={**record.fields, "image": str(path)}, content=b"turned")
    for recipe in (trained.recipe, trained.tiled):
        lying = TASK.from_outputs(trained.served([turned], recipe), LABELS)
        for prediction, answer in zip(trained.predictions([turned], recipe), lying, strict=True):
            assert answer["boxes"] == pytest.approx(prediction["boxes"], abs=0.05)
    assert scores(trained.predictions([turned]), [turned])["ap50"] > 0.5


@pytest.mark.parametrize("how", ["recipe", "tiled"])
def test_both_signatures_answer_alike_and_take_an_empty_batch(trained, how: str):
    recipe = getattr(trained, how)
    serving = TASK.serving(live(trained.joined.model), LABELS, recipe)
    record = scene(trained.folder, 3, (100, 140), count=4)
    pixels = np.asarray(Image.open(record.fields["image"]))[None]
    by_bytes = serving.signatures["serving_default"](**TASK.request([record]))
    by_pixels = serving.signatures["pixels"](pixels=tf.constant(pixels))
    for name, value in by_bytes.items():
        if name != "labels":
            assert by_pixels[name].numpy() == pytest.approx(value.numpy(), abs=1e-2)
    assert by_bytes["labels"].numpy().tolist() == by_pixels["labels"].numpy().tolist()
    nothing = serving.signatures["serving_default"](image_bytes=tf.zeros([0], tf.string))
    assert {name: tuple(value.shape) for name, value in nothing.items()} == {
        "boxes": (0, MOST, 4),
        "labels": (0, MOST),
        "scores": (0, MOST),
        "count": (0,),
        "best_score": (0,),
    }
    assert serving.signatures["pixels"](pixels=tf.zeros([0, 80, 70, 3], tf.uint8))["boxes"].shape == (0, MOST, 4)


def test_what_is_beyond_the_count_is_empty(trained):
    found = trained.served([scene(trained.folder, 5)])
    count = int(found["count"][0])
    assert 0 < count < MOST
    assert not found["scores"][0, count:].any() and set(found["labels"][0, count:].tolist()) == {b""}
    assert set(found["labels"][0, :count].tolist()) <= {b"blue", b"red"}


def test_predict_shows_boxes_from_the_threshold_on_as_plain_json(trained):
    record = scene(trained.folder, 5)
    outputs = trained.served([record])
    lenient, strict = (TASK.answers(outputs, LABELS.with_thresholds([t]))[0] for t in (0.06, 0.999))
    assert json.loads(json.dumps(lenient)) == lenient and set(lenient) == {"boxes", "labels", "scores"}
    assert len(lenient["boxes"]) == len(lenient["labels"]) == len(lenient["scores"]) > len(strict["boxes"])
    assert lenient["scores"] == sorted(lenient["scores"], reverse=True)
    assert all(0 <= edge <= SIDE for box in lenient["boxes"] for edge in box)


def test_calibration_chooses_one_threshold_on_validation(trained):
    records = [scene(trained.folder, seed) for seed in range(200, 210)]
    predictions, references = trained.predictions(records), TASK.references(records, LABELS)
    chosen = TASK.calibrate(predictions, references, LABELS)
    assert len(chosen.thresholds) == 1 and 0.05 <= chosen.thresholds[0] < 1
    f1 = TASK.score(predictions, references, chosen)["f1"]
    assert f1 >= max(TASK.score(predictions, references, LABELS.with_thresholds([t]))["f1"] for t in (0.1, 0.3, 0.6))
    assert TASK.calibrate([], [], LABELS) == LABELS


def test_the_drawing_shows_the_boxes_on_the_picture(trained):
    record = scene(trained.folder, 6, (120, 160), count=3)
    answer = {"boxes": [[20.0, 30.0, 60.0, 80.0]], "labels": ["red"], "scores": [0.8]}
    TASK.draw(record, answer, trained.folder / "drawn.png")
    drawn, plain = (
        np.asarray(Image.open(path), int) for path in (trained.folder / "drawn.png", record.fields["image"])
    )
    changed = np.abs(drawn - plain).sum(-1) > 60
    assert drawn.shape == plain.shape and changed[30:80, 20].all() and changed[79, 21:59].all()
    assert not changed[40:75, 25:55].any() and not changed[90:, 100:].any()


# Training examples


def pixels_and_boxes(records, recipe: Recipe, epoch: int = 0, labels: Labels = LABELS):
    """All training examples of an epoch: pictures, and boxes with classes but for padding."""
    examples = TASK.examples(records, labels, small_network(), recipe, True)
    batches = training_batches(examples, len(examples), 0, first_epoch=epoch)
    batch = next(iter(batches.dataset))
    found = []
    for pixels, boxes, classes in zip(
        batch["inputs"]["pixels"].numpy(),
        batch["targets"]["boxes"].numpy(),
        batch["targets"]["classes"].numpy(),
        strict=True,
    ):
        found.append((pixels, boxes[classes != PADDED], classes[classes != PADDED]))
    return found


def painted(pixels: np.ndarray, label: int) -> np.ndarray:
    """bool [H, W]: where a picture has the colour of a class."""
    return np.abs(pixels - list(COLOURS.values())[label]).sum(-1) < 90


@pytest.mark.parametrize(
    "augment", ["none", "flip:1,flip_vertical:1", "rotate:20,translate:0.1", "flip,color:0.1,crop:0.3"]
)
@pytest.mark.parametrize("tile_scale", [0.0, 1.7])
def test_boxes_stay_on_their_objects_whatever_moves_the_picture(tmp_path, augment: str, tile_scale: float):
    # In one colour, so that it is known which pixels a box must hold.
    records = [scene(tmp_path, seed, (90, 110), count=3) for seed in range(6)]
    options = {"tile_scale": tile_scale, "tile_overlap": 24}
    recipe = planned(recipe_with(**{"data.augment": augment, "options": options}), small_network(), records)
    seen = 0
    for pixels, boxes, classes in pixels_and_boxes(records, recipe):
        assert ((boxes >= 0) & (boxes <= SIDE)).all()
        for (x1, y1, x2, y2), label in zip(boxes, classes, strict=True):
            if label == IGNORED or min(x2 - x1, y2 - y1) < 5:
                continue
            seen += 1
            mask = painted(pixels, label)
            inner = mask[int(np.ceil(y1)) : int(y2), int(np.ceil(x1)) : int(x2)]
            turned = "rotate" in augment
            assert inner.mean() > (0.45 if turned else 0.8)
            around = mask[max(int(y1) - 2, 0) : int(y2) + 3, max(int(x1) - 2, 0) : int(x2) + 3]
            assert around.sum() <= inner.sum() + 2 * (x2 - x1 + y2 - y1) + 8
    assert seen > 8


def test_every_epoch_sees_other_tiles_and_the_same_seed_the_same(tmp_path):
    records = [scene(tmp_path, 1, (150, 150), count=8)]
    recipe = planned(recipe_with(options={"tile_scale": 1.0}), small_network(), records)
    first, again, later = (pixels_and_boxes(records, recipe, epoch)[0] for epoch in (0, 0, 1))
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert np.abs(first[0] - later[0]).mean() > 1


def test_without_augmentation_examples_are_what_is_scored(tmp_path):
    records = [scene(tmp_path, 2, (90, 200), count=4)]
    recipe = planned(recipe_with(**{"data.augment": "none", "options": {"tile_scale": 1.0}}), small_network(), records)
    backbone = small_network()
    both = [TASK.examples(records, LABELS, backbone, recipe, training) for training in (True, False)]
    assert both[0].augment is None and both[0].key == both[1].key
    one, other = (next(iter(evaluation_batches(examples, len(examples)).dataset)) for examples in both)
    assert (one["inputs"]["pixels"].numpy() == other["inputs"]["pixels"].numpy()).all()


def test_an_object_cut_at_the_border_is_taught_by_what_remains_and_a_sliver_is_not():
    boxes = tf.constant([[-10.0, 0, 10, 10], [-18.0, 0, 2, 10], [-30.0, 0, -5, 10], [5.0, 5, 9, 9]])
    found = visible(boxes, tf.constant([1, 1, 1, 0]), 32, 5)
    kept = {
        tuple(box): label for box, label in zip(found["boxes"].numpy().tolist(), found["classes"].numpy(), strict=True)
    }
    assert kept[(0, 0, 10, 10)] == 1 and kept[(0, 0, 2, 10)] == IGNORED and kept[(5, 5, 9, 9)] == 0
    assert found["classes"].numpy().tolist().count(PADDED) == 2


def test_crowds_are_targets_in_which_nothing_is_punished(tmp_path):
    record = scene(tmp_path, 3)
    record = replace(record, fields={**record.fields, "crowd": (True, False)})
    recipe = planned(recipe_with(**{"data.augment": "none"}), small_network(), [record])
    _, _, classes = pixels_and_boxes([record], recipe)[0]
    assert sorted(classes.tolist())[0] == IGNORED and (classes >= 0).sum() == 1
    assert TASK.references([record], LABELS)[0]["crowd"].tolist() == [True, False]


def test_a_crowd_of_a_class_that_training_never_saw_is_no_fault(tmp_path):
    record = scene(tmp_path, 3)
    foreign = (*record.fields["labels"][:1], "swarm")
    record = replace(record, fields={**record.fields, "labels": foreign, "crowd": (False, True)})
    assert "swarm" not in TASK.learn_labels([record], recipe_with()).names
    recipe = planned(recipe_with(**{"data.augment": "none"}), small_network(), [record])
    _, _, classes = pixels_and_boxes([record], recipe)[0]
    assert sorted(classes.tolist())[0] == IGNORED and (classes >= 0).sum() == 1
    assert len(TASK.references([record], LABELS)[0]["boxes"]) == 1


def test_a_picture_without_boxes_trains_and_scores(tmp_path):
    empty = replace(scene(tmp_path, 4), fields={**scene(tmp_path, 4).fields, "boxes": (), "labels": ()})
    recipe = planned(recipe_with(), small_network(), [scene(tmp_path, 5)])
    assert len(pixels_and_boxes([empty], recipe)[0][1]) == 0
    assert TASK.references([empty], LABELS)[0]["boxes"].shape == (0, 4)


# What is decided, and what is refused


def plan_for(boxes: list[float], image: tuple[int, int], side: int = 320, **options: Any) -> box_plan.BoxPlan:
    corners = [np.array([[0, 0, extent, extent] for extent in boxes], np.float32)]
    return box_plan.plan([image], corners, side, options)


def test_large_photos_of_small_objects_are_tiled_and_others_are_not():
    aerial = plan_for([25, 35, 40, 60], (2299, 2472))
    assert 1 <= aerial.tile_scale <= 2 and aerial.tiling(320) is not None
    assert aerial.tile_overlap >= 60 * aerial.tile_scale * 0.9
    assert plan_for([150, 220, 300], (600, 800)).tile_scale == 0
    assert plan_for([20, 25, 30], (300, 320)).tile_scale == 0  # no larger than the input
    mixed = plan_for([20] * 10 + [1900] * 3, (2000, 2000))
    assert mixed.tile_scale == 0  # the large ones would fit no tile


def test_small_objects_get_the_finer_map():
    assert plan_for([14, 18], (320, 320), tile_scale=0).stride == 4
    assert plan_for([40, 120], (320, 320)).stride == 8


def test_options_that_are_given_stay():
    plan = plan_for([30], (2000, 2000), tile_scale="1.5", stride=8, tile_overlap=40)
    assert (plan.tile_scale, plan.stride, plan.tile_overlap) == (1.5, 8, 40)
    assert plan_for([30], (2000, 2000), tile_scale=0).tile_scale == 0
    with pytest.raises(ValueError, match="options.tile_scale: expected a number from 0 to 16. Received: 'big'"):
        plan_for([30], (200, 200), tile_scale="big")


def test_fit_inputs_says_what_was_decided(tmp_path):
    record = scene(tmp_path, 1, (500, 400), count=20, side=14)
    recipe, lines = TASK.fit_inputs(TASK.resolve(recipe_with(), 1), small_network(), [record])
    assert recipe.backbone.image_size == SIDE and recipe.options["tile_scale"] > 0
    assert len(lines) == 1 and f"tiles of {SIDE}×{SIDE} pixels" in lines[0]


@pytest.mark.parametrize("augment", ["mixup", "flip,cutmix:1", "erase", "strong"])
def test_augmentation_that_boxes_cannot_follow_is_refused(augment: str):
    with pytest.raises(ValueError, match="data.augment: .* would hide objects whose boxes stay.*Received: "):
        TASK.resolve(recipe_with(**{"data.augment": augment}), 100)


def test_a_crop_to_the_square_is_refused():
    with pytest.raises(ValueError, match="data.resize: expected pad or stretch"):
        TASK.resolve(recipe_with(**{"data.resize": "crop"}), 100)


def test_nothing_is_left_open(tmp_path):
    recipe = planned(recipe_with(), small_network(), [scene(tmp_path, 1)])
    assert recipe.data.resize == "pad" and recipe.data.augment != "auto" and recipe.backbone.image_size == SIDE
    for phase in (recipe.head, recipe.fine_tune):
        assert phase.epochs and phase.learning_rate
    assert recipe.fine_tune.trainable == "all"
    given = recipe_with(**{"head.epochs": 0, "fine_tune.epochs": 3, "fine_tune.learning_rate": 7e-5})
    kept = planned(given, small_network(), [scene(tmp_path, 1)])
    assert (kept.head.epochs, kept.fine_tune.epochs, kept.fine_tune.learning_rate) == (0, 3, 7e-5)


def test_a_network_without_normalization_is_tuned_more_slowly_and_many_tiles_for_fewer_epochs(tmp_path):
    layers = keras.layers
    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 8, 8, name="conv")(inputs))
    normed = backbones.wrap(keras.Model(inputs, x, name="normed"), preprocess="tf")
    few, many = [scene(tmp_path, 1)], [scene(tmp_path, 1, (900, 900), count=20)]
    bare = planned(recipe_with(), small_network(), few)
    assert planned(recipe_with(), normed, few).fine_tune.learning_rate > bare.fine_tune.learning_rate
    tiled = planned(recipe_with(options={"tile_scale": 1.0}), small_network(), many)
    assert tiled.fine_tune.epochs < bare.fine_tune.epochs


def test_labels_are_those_that_the_source_lists_or_those_of_the_boxes(tmp_path):
    record = scene(tmp_path, 1)
    assert TASK.learn_labels([record], recipe_with()).names == ("blue", "red")
    listed = replace(record, fields={**record.fields, "classes": ("red", "blue", "green")})
    assert TASK.learn_labels([listed], recipe_with()).names == ("red", "blue", "green")
    with pytest.raises(ValueError, match="made: expected boxes in the training images"):
        TASK.learn_labels([replace(record, fields={**record.fields, "labels": (), "boxes": ()})], recipe_with())


def test_a_class_that_no_training_picture_has_is_named(tmp_path):
    record = scene(tmp_path, 1)
    with pytest.raises(ValueError, match="is in no training example"):
        TASK.examples([record], Labels(("green",)), small_network(), recipe_with(), False)


# Decoded photos


def test_photos_are_decoded_once_and_read_in_parts(tmp_path):
    record = scene(tmp_path, 1, (80, 100))
    pixels = np.asarray(Image.open(record.fields["image"]))
    photos = DecodedPhotos([record], [(80, 100)], tmp_path / "kept", 1e6)
    assert (photos.region(0, 10, 20, 30, 40) == pixels[10:40, 20:60]).all()
    assert photos.used() > 80 * 100 * 3
    Path(record.fields["image"]).unlink()  # from the disk, not from the photo
    again = DecodedPhotos([record], [(80, 100)], tmp_path / "kept", 1e6)
    assert (again.region(0, 0, 0, 80, 100) == pixels).all()


def test_the_budget_for_photos_holds_and_those_used_longest_ago_go(tmp_path):
    records = [scene(tmp_path, seed, (50, 50)) for seed in range(3)]
    for record in records:
        DecodedPhotos([record], [(50, 50)], tmp_path / "kept", 2.5 * 7_700).region(0, 0, 0, 5, 5)
    assert len(list((tmp_path / "kept").glob("*.npy"))) == 2
    poor = DecodedPhotos(records, [(50, 50)] * 3, tmp_path / "none", 10.0)
    assert poor.region(2, 0, 0, 50, 50).shape == (50, 50, 3) and poor.used() == 0


def test_a_photo_that_changed_meanwhile_is_named(tmp_path):
    record = scene(tmp_path, 1, (50, 60))
    photos = DecodedPhotos([record], [(50, 50)], tmp_path / "kept", 1e6)
    with pytest.raises(ValueError, match=r"scene_1_50x60.png: expected a photo of \(50, 50\) pixels"):
        photos.region(0, 0, 0, 5, 5)
