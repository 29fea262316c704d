"""Augmentation of training images in the graph: what is drawn depends on the seed alone.

All movements (flip, crop, rotation, translation, those of RandAugment) are one matrix and one resampling, which boxes
and masks can follow; all linear changes of colour are one pass over the pixels.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from keras_transfer.vision import colours, mixing, warping
from keras_transfer.vision.images import PADDING

_DEFAULTS = {
    "flip": 0.5,
    "flip_vertical": 0.5,
    "crop": 0.2,
    "rotate": 10.0,
    "translate": 0.1,
    "color": 0.2,
    "randaugment": 9.0,
    "erase": 0.25,
    "mixup": 0.2,
    "cutmix": 1.0,
}
"""The strength of an operation that is named without one."""
_LARGEST = {
    "flip": 1.0,
    "flip_vertical": 1.0,
    "crop": 0.95,
    "rotate": 180.0,
    "translate": 0.5,
    "color": 1.0,
    "randaugment": 30.0,
    "erase": 1.0,
    "mixup": 10.0,
    "cutmix": 10.0,
}
PRESETS = {
    "none": "",
    "light": "flip,crop:0.2",
    "medium": "flip,crop:0.35,rotate:10,color:0.2",
    "strong": "flip,crop:0.6,rotate:15,color:0.3,randaugment:9,erase:0.25,mixup:0.2,cutmix:1.0",
}
"""Judgements. `light` leaves colours and angles as they are, for data where they carry the class. `medium` has the
strengths of fastai's `aug_transforms` (flip, 10 degrees, lighting 0.2) with more cropping. `strong` is for long
trainings on thousands of images, after "ResNet strikes back" (Wightman et al., 2021, arXiv 2110.00476) and RandAugment
(Cubuk et al., 2020, arXiv 1909.13719: magnitude 9 of 30), cropping less, since few epochs follow."""

_WIDEST = math.log(4 / 3)
"""A crop's sides stay within 4:3, as in Inception's training (Szegedy et al., 2015, arXiv 1409.4842)."""
_HUE_SHARE = 0.1
"""Turns of hue at colour strength 1: it often carries the class, so it moves far less than brightness."""
_ERASED = (0.02, 0.2)
"""Smallest and largest share of the area that is erased; Zhong et al. (2017, arXiv 1708.04896) go up to 0.4."""
_ERASED_ASPECT = math.log(10 / 3)

_LAYERS = 2
"""Operations that RandAugment applies to each image, as the paper found best for ResNet-50."""
_MAGNITUDES = 30.0
_OPERATIONS = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
"""The paper's 14."""
_DRAWS = (
    *("flip", "flip_vertical", "area", "aspect", "top", "left", "angle", "move_x", "move_y"),
    *("brightness", "contrast", "saturation", "hue", "erase", "erased_area", "erased_aspect", "erased_y", "erased_x"),
    *(f"{what}_{layer}" for layer in range(_LAYERS) for what in ("operation", "sign")),
)
"""What is drawn for an image, by position: new draws go to the end, so that a seed keeps its meaning."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image. Zero leaves an operation out; `parse` checks the ranges."""

    flip: float = 0.0
    """Probability of mirroring left and right."""
    flip_vertical: float = 0.0
    """Probability of mirroring top and bottom: for photos without an up, as aerial ones."""
    crop: float = 0.0
    """The largest share of the area that is cut away; the rest is enlarged to the full size."""
    rotate: float = 0.0
    """The largest angle in degrees, either way."""
    translate: float = 0.0
    """The largest move as a share of each side, either way."""
    color: float = 0.0
    """The largest change of brightness, contrast and saturation as a share, and a tenth of it of hue in turns."""
    randaugment: float = 0.0
    """Magnitude of two random operations out of 14, of 30."""
    erase: float = 0.0
    """Probability of painting over a rectangle."""
    mixup: float = 0.0
    """Parameter of the Beta distribution of MixUp's shares."""
    cutmix: float = 0.0
    """Parameter of the Beta distribution of CutMix's shares."""

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Reads `none`, `light`, `medium`, `strong`, or operations such as `flip,crop:0.2,rotate:10,mixup:0.2`.

        An operation without a number takes its usual strength. A preset can come first, and operations then change
        it: `medium,mixup:0.2`, `strong,flip:0`.

        Raises:
            ValueError: for unknown operations and strengths out of range, all at once.
        """
        items = [item.strip() for item in text.split(",")]
        strengths: dict[str, float] = {}
        if items[0] in PRESETS:
            preset = items.pop(0)
            strengths = dataclasses.asdict(cls.parse(PRESETS[preset])) if PRESETS[preset] else {}
        faults: list[str] = []
        named: set[str] = set()
        for item in items:
            name, _, number = item.partition(":")
            fault = _fault(name, number) or (f"{name} is named twice" if name in named else "")
            named.add(name)
            if fault:
                faults.append(fault)
            else:
                strengths[name] = float(number) if number else _DEFAULTS[name]
        if faults:
            raise ValueError(
                f"augment: {'; '.join(faults)}. Expected {', '.join(PRESETS)}, or operations of "
                f"{', '.join(_DEFAULTS)}, such as flip,crop:0.2. Received: {text!r}"
            )
        return cls(**strengths)

    def __str__(self) -> str:
        """The operations with their strengths, which `parse` reads back: equal texts augment equally."""
        present = [f"{name}:{strength:g}" for name, strength in dataclasses.asdict(self).items() if strength]
        return ",".join(present) or "none"

    @property
    def mixes(self) -> bool:
        """Whether `batch` changes anything."""
        return bool(self.mixup or self.cutmix)

    @property
    def moves(self) -> bool:
        """Whether `geometric_matrix` can be other than the identity."""
        return bool(self.flip or self.flip_vertical or self._resamples)

    @property
    def _resamples(self) -> bool:
        """Whether pixels come to lie between pixels."""
        return bool(self.crop or self.rotate or self.translate or self.randaugment)

    def one(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image: moves it, changes its colours, erases a part of it.

        Args:
            image: float32 [H, W, 3], 0-255.
            seed: int32 [2]; the same seed gives the same image, whatever the order, device or process.

        Returns:
            float32 [H, W, 3], 0-255; the very same tensor where there is nothing to do.
        """
        if self._resamples:
            image = colours.clip(warping.warp(image, self.geometric_matrix(seed, tf.shape(image)[:2])))
        elif self.moves:
            image = self._mirrored(image, seed)
        return self.erased(self.recoloured(image, seed), seed)

    def batch(self, images: tf.Tensor, targets: tf.Tensor, seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """MixUp and CutMix; see `mixing.mix`. Unchanged where `mixes` is False.

        Args:
            images: float32 [B, H, W, 3], 0-255.
            targets: float [B, C], one-hot or several-hot.
            seeds: int32 [B, 2].
        """
        if not self.mixes:
            return images, targets
        return mixing.mix(images, targets, seeds, self.mixup, self.cutmix)

    def geometric_matrix(self, seed: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """The movement that `one` makes with this seed, for boxes and masks to follow (`warping.warp`).

        Args:
            seed: int32 [2].
            size: int32 [2], height and width of the image in pixels.

        Returns:
            float32 [3, 3]: takes (x, y, 1) of a point before to (x, y, 1) after, in pixels, as boxes count.
        """
        if not self.moves:
            return warping.identity()
        draw = _draw(seed)
        height, width = tf.unstack(tf.cast(size, tf.float32))
        steps = [self._zoom(draw, height, width)] if self.crop else []
        angle, slant_x, slant_y = self.rotate * draw["angle"], tf.zeros([]), tf.zeros([])
        move_x, move_y = self.translate * draw["move_x"], self.translate * draw["move_y"]
        for chosen, sign in self._layers(draw):
            level = sign * self.randaugment / _MAGNITUDES
            angle += 30 * level * chosen("rotate")
            slant_x += 0.3 * level * chosen("shear_x")
            slant_y += 0.3 * level * chosen("shear_y")
            move_x += 0.45 * level * chosen("translate_x")
            move_y += 0.45 * level * chosen("translate_y")
        if self.rotate or self.randaugment:
            steps.append(warping.rotation(angle))
        if self.randaugment:
            steps.append(warping.shear(slant_x, slant_y))
        if self.translate or self.randaugment:
            steps.append(warping.translation(move_x * width, move_y * height))
        if self.flip or self.flip_vertical:
            flips = [tf.where(flip, -1.0, 1.0) for flip in self._flips(draw)]
            steps.append(warping.scaling(*flips))
        return warping.about(width / 2, height / 2, warping.compose(*steps))

    def recoloured(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The changes of colour alone, which leave boxes and masks as they are; arguments as for `one`."""
        if not (self.color or self.randaugment):
            return image
        draw = _draw(seed)
        brightness, contrast, saturation = (
            1 + self.color * draw[name] for name in ("brightness", "contrast", "saturation")
        )
        layers = self._layers(draw)
        enhancement = 0.9 * self.randaugment / _MAGNITUDES
        for chosen, sign in layers:
            brightness *= 1 + sign * enhancement * chosen("brightness")
            contrast *= 1 + sign * enhancement * chosen("contrast")
            saturation *= 1 + sign * enhancement * chosen("color")
        image = colours.adjust(image, brightness, contrast, saturation, _HUE_SHARE * self.color * draw["hue"])
        for layer, (_, sign) in enumerate(layers):
            image = self._enhanced(image, draw[f"operation_{layer}"], 1 + sign * enhancement)
        return image

    def erased(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Random erasing alone (Zhong et al., 2017, arXiv 1708.04896); arguments as for `one`."""
        if not self.erase:
            return image
        draw = _draw(seed)
        height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
        area = _ERASED[0] + (_ERASED[1] - _ERASED[0]) * _share(draw["erased_area"])
        stretch = tf.exp(_ERASED_ASPECT * draw["erased_aspect"] / 2)
        high, wide = (tf.minimum(tf.sqrt(area) * side, 1.0) for side in (stretch, 1 / stretch))
        top, left = _share(draw["erased_y"]) * (1 - high), _share(draw["erased_x"]) * (1 - wide)
        rows, columns = (tf.range(height) + 0.5) / height, (tf.range(width) + 0.5) / width
        inside = ((rows >= top) & (rows < top + high))[:, tf.newaxis] & (columns >= left) & (columns < left + wide)
        inside &= _share(draw["erase"]) < self.erase
        return tf.ensure_shape(tf.where(inside[:, :, tf.newaxis], tf.constant(PADDING), image), image.shape)

    def _mirrored(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The flips alone, without resampling."""
        left_right, top_bottom = self._flips(_draw(seed))
        image = tf.cond(left_right, lambda: image[:, ::-1], lambda: image)
        return tf.cond(top_bottom, lambda: image[::-1], lambda: image)

    def _flips(self, draw: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Bool scalars: mirror left and right, mirror top and bottom."""
        return _share(draw["flip"]) < self.flip, _share(draw["flip_vertical"]) < self.flip_vertical

    def _zoom(self, draw: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """The map, about the middle of the image, that enlarges the crop to the whole."""
        area = 1 - self.crop * _share(draw["area"])
        aspect = tf.exp(min(_WIDEST, -math.log(1 - self.crop)) * draw["aspect"] / 2)
        high, wide = tf.minimum(tf.sqrt(area) / aspect, 1.0), tf.minimum(tf.sqrt(area) * aspect, 1.0)
        middle_x, middle_y = draw["left"] * (1 - wide) * width / 2, draw["top"] * (1 - high) * height / 2
        return warping.compose(warping.translation(-middle_x, -middle_y), warping.scaling(1 / wide, 1 / high))

    def _layers(self, draw: dict[str, tf.Tensor]) -> list[tuple[Callable[[str], tf.Tensor], tf.Tensor]]:
        """For each layer of RandAugment: (name -> 1.0 where this operation was drawn, else 0.0; its sign)."""

        def chooser(index: tf.Tensor) -> Callable[[str], tf.Tensor]:
            return lambda name: tf.cast(tf.equal(index, _OPERATIONS.index(name)), tf.float32)

        return [
            (chooser(draw[f"operation_{layer}"]), draw[f"sign_{layer}"])
            for layer in range(_LAYERS if self.randaugment else 0)
        ]

    def _enhanced(self, image: tf.Tensor, index: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """RandAugment's operation of this index, if it is one that no matrix can express."""
        strength = self.randaugment / _MAGNITUDES
        nonlinear = {
            "autocontrast": lambda: colours.autocontrast(image),
            "equalize": lambda: colours.equalize(image),
            "solarize": lambda: colours.solarize(image, 256 * (1 - strength)),
            "posterize": lambda: colours.posterize(image, 8 - round(4 * strength)),
            "sharpness": lambda: colours.sharpness(image, factor),
        }
        enhanced = tf.switch_case(index, [nonlinear.get(name, lambda: image) for name in _OPERATIONS])
        return tf.ensure_shape(enhanced, image.shape)


def _fault(name: str, number: str) -> str:
    """What is wrong with one operation; "" where nothing is."""
    if name not in _DEFAULTS:
        near = difflib.get_close_matches(name, [*_DEFAULTS, *PRESETS], 1)
        return f"no such operation: {name!r}" + (f" (did you mean {near[0]}?)" if near else "")
    if number:
        try:
            in_range = 0 <= float(number) <= _LARGEST[name]
        except ValueError:
            in_range = False
        if not in_range:
            return f"{name}: expected a number from 0 to {_LARGEST[name]:g}, not {number!r}"
    return ""


def _draw(seed: tf.Tensor) -> dict[str, tf.Tensor]:
    """All that is drawn for an image: float32 scalars in [-1, 1), signs -1 or 1, operations int32 indices."""
    values = tf.unstack(tf.random.stateless_uniform([len(_DRAWS)], seed, -1.0, 1.0, alg="philox"))
    draw = dict(zip(_DRAWS, values, strict=True))
    for layer in range(_LAYERS):
        draw[f"sign_{layer}"] = tf.where(draw[f"sign_{layer}"] < 0, -1.0, 1.0)
        draw[f"operation_{layer}"] = tf.cast(_share(draw[f"operation_{layer}"]) * len(_OPERATIONS), tf.int32)
    return draw


def _share(value: tf.Tensor) -> tf.Tensor:
    """[-1, 1) to [0, 1)."""
    return (value + 1) / 2
