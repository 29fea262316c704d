"""Semantic segmentation: what a user sees of it, from records to masks at the size of the images."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_scenes import CLASSES, draw_scene

from keras_transfer import backbones, evaluation
from keras_transfer import recipe as recipes
from keras_transfer.data import pipeline
from keras_transfer.data.records import Record
from keras_transfer.labels import Labels
from keras_transfer.recipe import DataSpec, Recipe
from keras_transfer.tasks import get_task
from keras_transfer.tasks.base import Draws, Serving, Task

SIZE = 64
NAMES = ("background", *CLASSES)
LABELS = Labels(NAMES)
TASK = get_task("semantic_segmentation")
SIZES = [(72, 64), (64, 72), (40, 41), (130, 33)]
"""Width and height."""


def write(folder: Path, sizes=SIZES, names=NAMES) -> list[Record]:
    """Scenes as records."""
    records = []
    for number, (width, height) in enumerate(sizes):
        scene = draw_scene(width, height, number)
        image, mask = folder / f"{number}.png", folder / f"{number}.mask.png"
        scene.image.save(image)
        scene.mask.save(mask)
        fields = {"image": str(image), "mask": str(mask), "classes": names}
        records.append(Record(f"{number}.png", fields, str(image)))
    return records


@pytest.fixture
def records(tmp_path) -> list[Record]:
    return write(tmp_path)


def recipe_of(**changes) -> Recipe:
    recipe = Recipe(name="scenes", task=TASK.name, data=DataSpec(source="made", augment="none"))
    recipe = recipes.override(recipe, {"backbone.image_size": SIZE, **changes})
    return TASK.resolve(recipe, 8)


@pytest.fixture(scope="module")
def backbone():
    layers = keras.layers
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for number in range(1, 5):
        x = layers.Conv2D(8, 3, 2, "same", activation="relu", name=f"stage{number}")(x)
    return backbones.wrap(keras.Model(inputs, x, name="own"), preprocess="tf")


def colour_logits(squares: tf.Tensor) -> tf.Tensor:
    """A perfect network for the scenes: reddish is a disc, bluish a square."""
    red, blue = squares[..., 0], squares[..., 2]
    scores = tf.stack([tf.fill(tf.shape(red), 40.0), red - blue, blue - red], -1)
    return scores / 10


@pytest.fixture(scope="module")
def serving() -> Serving:
    """What the perfect network's export offers; traced once."""
    return TASK.serving(colour_logits, LABELS, recipe_of())


def png_of(answer: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(answer)) as mask:
        assert mask.format == "PNG" and mask.mode == "L"
        return np.asarray(mask)


def test_it_is_a_task_that_draws():
    assert isinstance(TASK, Task) and isinstance(TASK, Draws)


# Recipes


def test_open_fields_are_decided_by_the_number_of_examples():
    few, many = (TASK.resolve(Recipe(task=TASK.name), count) for count in (6, 5_000))
    assert few.data.resize == "pad" and few.data.augment == "light"
    assert few.backbone.image_size % 32 == 0
    assert few.data.batch_size == 6 and many.data.batch_size == 32
    for recipe in (few, many):
        for phase in (recipe.head, recipe.fine_tune):
            assert phase.epochs and phase.learning_rate
    assert few.fine_tune.trainable == "all"
    # Enough steps for few images; few passes over many.
    assert few.head.epochs + few.fine_tune.epochs >= 150
    assert many.head.epochs + many.fine_tune.epochs <= 15


def test_what_the_recipe_says_stands():
    recipe = recipe_of(
        **{"head.epochs": 0, "fine_tune.epochs": 3, "fine_tune.trainable": "last:1", "data.resize": "stretch"}
    )
    assert (recipe.head.epochs, recipe.fine_tune.epochs, recipe.fine_tune.trainable) == (0, 3, "last:1")
    assert recipe.data.resize == "stretch" and recipe.backbone.image_size == SIZE


def test_crop_is_refused():
    with pytest.raises(ValueError, match="data.resize: expected pad or stretch.*crop"):
        recipe_of(**{"data.resize": "crop"})


@pytest.mark.parametrize("augment", ["mixup:0.2", "light,cutmix", "flip,erase:0.5", "strong,mixup:0.4"])
def test_augmentation_that_masks_cannot_follow_is_refused(augment):
    with pytest.raises(ValueError, match="data.augment: expected operations that a mask can follow"):
        recipe_of(**{"data.augment": augment})


def test_the_preset_strong_goes_without_mixing_and_says_so():
    said = recipe_of(**{"data.augment": "strong"}).data.augment
    assert "randaugment" in said and "crop" in said
    assert not any(name in said for name in ("mixup", "cutmix", "erase"))
    assert recipe_of(**{"data.augment": "strong,mixup:0,erase:0"}).data.augment == said


@pytest.mark.parametrize("width", ["0", "-8", "12", "wide", 7.5])
def test_a_width_that_cannot_be_is_refused(width, backbone):
    with pytest.raises(ValueError, match="options.width: expected a multiple of 8 of at least 8. Received"):
        TASK.build_head(backbone.encoder("pyramid").output, LABELS, recipe_of(options={"width": width}))


def test_views_show_each_image_several_times_an_epoch_differently(records, backbone):
    recipe = recipe_of(options={"views": "3"}, **{"data.augment": "rotate:90"})
    assert recipe.data.batch_size == 24  # of eight images
    examples = TASK.examples(records, LABELS, backbone, recipe, training=True)
    assert len(examples) == len(examples.meta) == 3 * len(records)
    batch = next(iter(pipeline.training_batches(examples, len(examples), 0).dataset))
    seen = {
        index: pixels for index, pixels in zip(batch["index"].numpy(), batch["inputs"]["pixels"].numpy(), strict=True)
    }
    assert len(seen) == len(examples)
    assert len({pixels.tobytes() for pixels in seen.values()}) == len(examples)
    assert len(TASK.examples(records, LABELS, backbone, recipe, training=False)) == len(records)
    with pytest.raises(ValueError, match="options.views: expected a whole number of at least 1. Received: 0"):
        recipe_of(options={"views": 0})


# Labels and examples


def test_labels_are_the_listed_classes_in_order(records):
    assert TASK.learn_labels(records, recipe_of()) == LABELS


def test_one_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match="from 2 to 255 classes. Received: 1: thing"):
        TASK.learn_labels(write(tmp_path, SIZES[:1], ("thing",)), recipe_of())


def test_examples_hold_square_pixels_and_masks(records, backbone):
    examples = TASK.examples(records, LABELS, backbone, recipe_of(), training=False)
    assert len(examples) == len(records) and examples.augment is None
    for number, (width, height) in enumerate(SIZES):
        inputs, targets = examples.load(tf.constant(number, tf.int64))
        assert inputs["pixels"].shape == (SIZE, SIZE, 3) and targets["mask"].shape == (SIZE, SIZE)
        assert inputs["pixels"].dtype == tf.float32 and targets["mask"].dtype == tf.uint8
        assert (examples.meta[number]["height"], examples.meta[number]["width"]) == (height, width)
        # The network that knows the colours agrees with the mask wherever it counts.
        counted = targets["mask"].numpy() != 255
        right = colour_logits(inputs["pixels"]).numpy().argmax(-1) == targets["mask"].numpy()
        assert right[counted].mean() > 0.97
        assert counted.mean() == pytest.approx(min(width, height) / max(width, height), abs=0.04)


def test_augmented_examples_keep_image_and_mask_together(records, backbone):
    recipe = recipe_of(**{"data.augment": "flip,crop:0.3,rotate:20"})
    examples = TASK.examples(records, LABELS, backbone, recipe, training=True)
    assert examples.augment is not None
    assert TASK.examples(records, LABELS, backbone, recipe, training=False).augment is None
    inputs, targets = examples.load(tf.constant(0, tf.int64))
    for seed in range(4):
        moved, follows = examples.augment(inputs, targets, tf.constant([seed, 1]))
        counted = follows["mask"].numpy() != 255
        right = colour_logits(moved["pixels"]).numpy().argmax(-1) == follows["mask"].numpy()
        assert counted.mean() > 0.5 and right[counted].mean() > 0.95


def test_classes_in_another_order_are_matched_by_name(records, backbone, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    turned = write(other, names=("background", "square", "disc"))
    plain = TASK.examples(records, LABELS, backbone, recipe_of(), training=False)
    swapped = TASK.examples([*records[:1], *turned], LABELS, backbone, recipe_of(), training=False)
    one = plain.load(tf.constant(0, tf.int64))[1]["mask"].numpy()
    two = swapped.load(tf.constant(1, tf.int64))[1]["mask"].numpy()
    table = np.arange(256, dtype=np.uint8)
    table[[1, 2]] = 2, 1
    assert {1, 2} <= set(np.unique(one))
    np.testing.assert_array_equal(two, table[one])
    np.testing.assert_array_equal(swapped.load(tf.constant(0, tf.int64))[1]["mask"], one)


def test_an_unknown_class_names_file_and_class(tmp_path, backbone):
    stray = write(tmp_path, SIZES[:1], ("background", "disc", "pentagon"))
    for work in (
        lambda: TASK.examples(stray, LABELS, backbone, recipe_of(), training=False),
        lambda: TASK.references(stray, LABELS),
    ):
        with pytest.raises(ValueError, match=r"0\.png: label 'pentagon' is in no training example"):
            work()


def test_rare_classes_weigh_more_and_pixels_one_on_average(records, backbone):
    recipe = recipe_of(class_weights="balanced")
    examples = TASK.examples(records, LABELS, backbone, recipe, training=True)
    counts = np.zeros(3)
    for record in records:
        counts += np.bincount(np.asarray(Image.open(record.fields["mask"])).ravel(), minlength=3)
    weights = TASK.class_weights(examples, LABELS, recipe)
    assert weights is not None and weights.dtype == np.float32
    assert (weights @ counts) / counts.sum() == pytest.approx(1, rel=1e-5)
    assert np.argsort(weights).tolist() == np.argsort(-counts).tolist()
    assert TASK.class_weights(examples, LABELS, recipe_of(class_weights="none")) is None


@pytest.mark.parametrize(("share", "weighed"), [(0.3, False), (0.02, True)])
def test_auto_weighs_only_what_is_really_rare(share, weighed, backbone, tmp_path):
    mask = np.zeros((50, 40), np.uint8)
    mask[: round(50 * share)] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.new("RGB", (40, 50)).save(tmp_path / "image.png")
    fields = {"image": str(tmp_path / "image.png"), "mask": str(tmp_path / "mask.png"), "classes": NAMES[:2]}
    labels = Labels(NAMES[:2])
    examples = TASK.examples([Record("x", fields, "x")], labels, backbone, recipe_of(), training=True)
    assert (TASK.class_weights(examples, labels, recipe_of()) is not None) == weighed


# Answers


def test_decode_and_an_export_answer_alike_at_the_size_of_each_image(records, backbone, serving):
    examples = TASK.examples(records, LABELS, backbone, recipe_of(), training=False)
    squares = tf.stack([examples.load(tf.constant(n, tf.int64))[0]["pixels"] for n in range(len(records))])
    decoded = TASK.decode(colour_logits(squares).numpy(), examples.meta, LABELS)
    outputs = serving.signatures["serving_default"](
        **{name: tf.constant(value) for name, value in TASK.request(records).items()}
    )
    served = TASK.from_outputs({name: value.numpy() for name, value in outputs.items()}, LABELS)
    references = TASK.references(records, LABELS)
    for one, two, (width, height) in zip(decoded, served, SIZES, strict=True):
        assert one["mask_png"] == two["mask_png"]
        assert png_of(one["mask_png"]).shape == (height, width)
        np.testing.assert_allclose(one["mean_probability"], two["mean_probability"], atol=1e-5)
        counts = np.bincount(png_of(two["mask_png"]).ravel(), minlength=3)
        np.testing.assert_allclose(two["class_share"], counts / counts.sum(), atol=1e-6)
    scores = TASK.score(decoded, references, LABELS)
    assert scores == TASK.score(served, references, LABELS)
    assert scores[TASK.primary_metric] > 0.9 and scores["boundary_f1"] > 0.6
    assert json.loads(json.dumps(scores)) == scores
    low, high = TASK.intervals(decoded, references, LABELS)["mean_iou"]
    assert low <= scores["mean_iou"] <= high
    assert TASK.calibrate(decoded, references, LABELS) == LABELS
    expected = TASK.expected(decoded, LABELS)
    assert all(outputs[name].shape == value.shape for name, value in expected.items())


def test_models_of_several_sizes_and_classes_are_decoded_in_one_process():
    """A graph that was traced for two sizes would know neither."""
    for size, names in ((32, "ab"), (48, "ab"), (64, "abc"), (32, "abcd")):
        logits = np.zeros((2, size, size, len(names)), np.float32)
        logits[..., -1] = 1.0
        meta = [{"height": size, "width": size // 2, "resize": "pad"}] * 2
        for decoded in TASK.decode(logits, meta, Labels(tuple(names))):
            mask = png_of(decoded["mask_png"])
            assert mask.shape == (size, size // 2) and (mask == len(names) - 1).all()
            assert decoded["class_share"].tolist() == [0.0] * (len(names) - 1) + [1.0]


def test_the_mask_of_a_turned_photo_is_upright(tmp_path, serving):
    scene = draw_scene(64, 48, 5)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    scene.image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    data = (tmp_path / "turned.jpg").read_bytes()
    png = serving.signatures["serving_default"](image_bytes=tf.constant([data]))["mask_png"].numpy()[0]
    found = png_of(png)
    assert found.shape == (48, 64)
    assert (found == np.asarray(scene.mask)).mean() > 0.95


def test_pixels_are_answered_as_their_file(records, serving):
    by_file = serving.signatures["serving_default"](image_bytes=tf.constant(TASK.request(records[:1])["image_bytes"]))
    pixels = np.asarray(Image.open(records[0].fields["image"]))
    by_pixels = serving.signatures["pixels"](pixels=tf.constant(np.stack([pixels, pixels[:, ::-1]])))
    assert by_pixels["mask_png"].shape == (2,)
    np.testing.assert_array_equal(png_of(by_pixels["mask_png"].numpy()[0]), png_of(by_file["mask_png"].numpy()[0]))
    mirrored = png_of(by_pixels["mask_png"].numpy()[1])[:, ::-1]
    assert (mirrored == png_of(by_pixels["mask_png"].numpy()[0])).mean() > 0.98


def test_an_empty_batch_gives_an_empty_answer(serving):
    for signature, empty in (
        ("serving_default", {"image_bytes": tf.zeros([0], tf.string)}),
        ("pixels", {"pixels": tf.zeros([0, 9, 7, 3], tf.uint8)}),
    ):
        outputs = serving.signatures[signature](**empty)
        assert [outputs[name].shape.as_list() for name in ("mask_png", "class_share")] == [[0], [0, 3]]


def test_a_bad_image_fails(serving):
    with pytest.raises(tf.errors.InvalidArgumentError):
        serving.signatures["serving_default"](image_bytes=tf.constant([b"no image"]))


def test_the_warm_up_is_answered(serving):
    for signature, inputs in serving.warmup.items():
        outputs = serving.signatures[signature](**{name: tf.constant(value) for name, value in inputs.items()})
        assert png_of(outputs["mask_png"].numpy()[0]).shape == (SIZE, SIZE)


def test_answers_are_json(records, serving):
    outputs = serving.signatures["serving_default"](image_bytes=tf.constant(TASK.request(records)["image_bytes"]))
    found = TASK.answers({name: value.numpy() for name, value in outputs.items()}, LABELS)
    answers = json.loads(json.dumps(found))
    assert answers == found
    for record, answer, (width, height) in zip(records, answers, SIZES, strict=True):
        assert (answer["width"], answer["height"]) == (width, height)
        mask = png_of(base64.b64decode(answer["mask"]))
        reference = np.asarray(Image.open(record.fields["mask"]))
        assert mask.shape == reference.shape and (mask == reference).mean() > 0.95
        assert list(answer["class_share"]) == list(NAMES)
        for number, share in enumerate(answer["class_share"].values()):
            assert share == pytest.approx((mask == number).mean(), abs=1e-6)


@pytest.mark.parametrize("size", [(72, 64), (33, 130), (700, 500), (5000, 60)])
def test_a_drawing_tints_what_was_found_and_names_it(size, tmp_path):
    width, height = size
    Image.new("RGB", size, (128, 128, 128)).save(tmp_path / "grey.png")
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 1
    shares = {name: float((mask == number).mean()) for number, name in enumerate(NAMES)}
    png = tf.io.encode_png(mask[..., None]).numpy()
    answer = {"mask": base64.b64encode(png).decode(), "class_share": shares}
    TASK.draw(Record("x", {"image": str(tmp_path / "grey.png")}, "x"), answer, tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.format == "PNG" and drawn.mode == "RGB"
        pixels = np.asarray(drawn).astype(int)
    factor = pixels.shape[1] / width
    below = round(height * factor)
    assert 512 <= max(below, pixels.shape[1]) <= 4096
    assert pixels.shape[0] > below + 16, "a legend below the picture"
    picture, legend = pixels[:below], pixels[below:]
    assert (picture[2, 2] == 128).all(), "the background stays as it is"
    inside = picture[round(0.375 * below), round(0.375 * pixels.shape[1])]
    assert inside[0] > 150 > inside[1], "the first class after the background is reddish"
    # The legend shows the very colour of the class that is there, and text.
    assert ((legend[..., 0] > 200) & (legend[..., 1] < 90)).any()
    assert (legend.max(-1) < 60).any()


def test_a_drawing_of_many_classes_has_as_many_colours(tmp_path):
    names = [f"class {number}" for number in range(40)]
    mask = np.repeat(np.arange(40, dtype=np.uint8), 16)[None].repeat(100, 0)
    Image.new("RGB", (640, 100), (128, 128, 128)).save(tmp_path / "grey.png")
    png = tf.io.encode_png(mask[..., None]).numpy()
    answer = {"mask": base64.b64encode(png).decode(), "class_share": dict.fromkeys(names, 1 / 40)}
    TASK.draw(Record("x", {"image": str(tmp_path / "grey.png")}, "x"), answer, tmp_path / "drawn.png")
    pixels = np.asarray(Image.open(tmp_path / "drawn.png"))
    assert len({tuple(pixels[50, 8 + 16 * number]) for number in range(40)}) == 40
    assert pixels.shape[0] > 100 + 6 * 16, "the legend takes several lines"


def test_a_mask_of_another_size_cannot_be_drawn(records, tmp_path):
    mask = base64.b64encode(tf.io.encode_png(tf.zeros([3, 3, 1], tf.uint8)).numpy()).decode()
    with pytest.raises(ValueError, match=r"expected the picture's size \(64, 72\). Received: \(3, 3\)"):
        TASK.draw(records[0], {"mask": mask, "class_share": {"a": 1.0, "b": 0.0}}, tmp_path / "drawn.png")


def test_the_engine_scores_a_model_through_its_head(records, backbone):
    """The joined model, as the engine runs it: padded batches, one prediction an image, a loss."""
    recipe = recipe_of()
    encoder = backbone.encoder("pyramid")
    head = TASK.build_head(encoder.output, LABELS, recipe)
    model = keras.Model(encoder.input, head(encoder.output))
    assert model.output_shape == (None, SIZE, SIZE, 3)
    examples = TASK.examples(records, LABELS, backbone, recipe, training=False)
    predictor = evaluation.Predictor(model, TASK.loss(LABELS, recipe, None))
    predictions, loss = predictor(TASK, examples, LABELS, 3)
    assert [png_of(p["mask_png"]).shape for p in predictions] == [(height, width) for width, height in SIZES]
    assert np.isfinite(loss)
    scores = TASK.score(predictions, TASK.references(records, LABELS), LABELS)
    assert set(scores) == {
        *("mean_iou", "iou_by_class", "mean_dice", "dice_by_class", "boundary_f1", "pixel_accuracy"),
    }
