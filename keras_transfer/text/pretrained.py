"""Loading text backbones and their tokenizers: keras_hub presets by name, preset folders, Hugging Face folders."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_transfer.text import families, hugging_face, networks
from keras_transfer.text.byte_pairs import Split
from keras_transfer.text.families import Pooling, TextFamily
from keras_transfer.text.tokenizing import Layout, Tokenizer, TokenizerSpec
from keras_transfer.vision.blocks import Block

# keras_hub's tokenizers of these families were trained with Llama 3's way of cutting a text into pieces.
_LLAMA3_SPLIT = ("Llama3", "Qwen2", "Qwen3", "Qwen", "SmolLM3", "GptOss")
# Decoders without learnt positions take any length; more memory than most machines have is asked for by name.
LONGEST_BY_DEFAULT = 2_048


@dataclass(frozen=True)
class TextNetwork:
    """A text backbone as loaded."""

    model: keras.Model
    """Packed tokens to a sequence [N, T, F], or to a vector [N, F] if `pooling` is `pooled`."""
    family: TextFamily
    pooling: Pooling
    blocks: tuple[Block, ...]
    tokenizer: Tokenizer
    longest: int
    """Tokens, special ones included, that an input has at most unless a recipe asks for more."""
    longest_possible: float
    """Tokens that the network can take; infinity where it has no learnt positions."""


def family_of(preset: str) -> TextFamily | None:
    """The family of a preset (a name, a handle or a folder); None if it is no backbone of texts.

    Raises:
        ValueError: if the preset cannot be had.
    """
    return families.find(_class_of(preset).__name__)


def load(preset: str, pooling: str = "auto", load_weights: bool = True, **arguments: Any) -> TextNetwork:
    """A text backbone with its tokenizer.

    Args:
        preset: a name, a handle or a folder, in the form of Keras or of Hugging Face.
        pooling: `auto` is the family's.
        load_weights: False leaves them random; the preset's configuration and vocabulary are needed all the same.
        arguments: for keras_hub's `from_preset`.

    Raises:
        ValueError: if the preset cannot be had, is no backbone of texts, or has a tokenizer of an unknown kind.
    """
    import keras_hub

    if pooling not in ("auto", *families.POOLINGS):
        known = ", ".join(("auto", *families.POOLINGS))
        raise ValueError(f"backbone.pooling: expected one of {known}. Received: {pooling!r}.")
    family = family_of(preset)
    if family is None:
        raise ValueError(f"backbone.name: expected a backbone of texts. Received: {preset!r}.")
    with _explained(preset), hugging_face.completed(preset, load_weights) as complete:
        hub = keras_hub.models.Backbone.from_preset(complete, load_weights=load_weights, **arguments)
        hub_tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(complete)
    chosen: Pooling = family.pooling if pooling == "auto" else pooling  # type: ignore[assignment]
    if (
        chosen == "pooled"
        and load_weights
        and family.name == "Bert"
        and not np.any(hub.get_layer("pooled_dense").kernel)
    ):
        raise ValueError(f"backbone.pooling: {preset} was saved without a pooler. Use mean or first.")
    model = networks.network(hub, chosen)
    tokenizer = Tokenizer(spec_of(hub_tokenizer, family, preset))
    rows = hub.get_config().get("vocabulary_size") or tokenizer.vocabulary_size
    if tokenizer.vocabulary_size > rows:
        raise ValueError(
            f"backbone.name: expected a tokenizer of at most {rows:,} tokens, since the network of {preset!r} knows no "
            f"more. Received: {tokenizer.vocabulary_size:,}. The folder's vocabulary belongs to another model."
        )
    possible = getattr(hub, "max_sequence_length", None) or math.inf
    longest = int(min(possible, LONGEST_BY_DEFAULT))
    blocks = networks.blocks(model)
    if family.reads_padding:
        # Activations are cached without their padding, which the layers above would miss: no place to cut there.
        blocks = tuple(replace(block, output="") for block in blocks)
    return TextNetwork(model, family, chosen, blocks, tokenizer, longest, possible)


def spec_of(tokenizer: Any, family: TextFamily, preset: str = "") -> TokenizerSpec:
    """A keras_hub tokenizer as plain values.

    Raises:
        ValueError: for a kind of tokenizer that is neither WordPiece, byte pairs nor SentencePiece.
    """
    from keras_hub import tokenizers

    layout = _layout(tokenizer, family)
    if getattr(tokenizer, "split_pattern", None) is not None:
        raise ValueError(
            f"backbone.name: {type(tokenizer).__name__} cuts texts by a pattern of its own, which cannot be had in an "
            "export. Expected a preset whose byte pairs are cut as those of GPT-2, Llama 3 or Bloom, or one of "
            "SentencePiece, such as the first Mistral presets."
        )
    if isinstance(tokenizer, tokenizers.WordPieceTokenizer):
        vocabulary = tuple(tokenizer.get_vocabulary())
        unknown = vocabulary.index(tokenizer.oov_token)
        return TokenizerSpec("wordpiece", layout, vocabulary, lowercase=bool(tokenizer.lowercase), unknown=unknown)
    if isinstance(tokenizer, tokenizers.BytePairTokenizer):
        ids, pieces = dict(tokenizer.vocabulary), hugging_face.pre_tokenizer(preset)
        names = {number: token for token, number in ids.items()}
        unknown = next((ids[name] for name in ("<unk>", "<|endoftext|>") if name in ids), layout.pad)
        return TokenizerSpec(
            "byte_pairs",
            layout,
            tuple(names.get(number, "") for number in range(max(names) + 1)),
            tuple(merge for merge in tokenizer.merges if not merge.startswith("#version")),
            split=_split(tokenizer, pieces),
            prefix_space=bool(pieces.get("add_prefix_space", tokenizer.add_prefix_space)),
            unknown=unknown,
        )
    if isinstance(tokenizer, tokenizers.SentencePieceTokenizer):
        # XLM-RoBERTa's ids are SentencePiece's plus one, with special tokens put before.
        shifted = type(tokenizer).__name__.startswith("XLMRoberta")
        return TokenizerSpec(
            "sentencepiece",
            layout,
            proto=bytes(tokenizer.proto),
            unknown=3 if shifted else 0,
            offset=1 if shifted else 0,
        )
    raise ValueError(
        "backbone.name: expected a tokenizer by WordPiece, byte pairs or SentencePiece. Received: "
        f"{type(tokenizer).__name__}."
    )


def _layout(tokenizer: Any, family: TextFamily) -> Layout:
    """The special tokens around a text."""

    def id_of(*names: str) -> int | None:
        found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
        return next((int(number) for number in found if number is not None), None)

    start, end, pad = id_of("start", "cls", "bos"), id_of("end", "sep", "eos"), id_of("pad")
    if start is None and end is None:
        raise ValueError(f"backbone.name: {type(tokenizer).__name__} has neither a start nor an end token.")
    start, end = (end if start is None else start), (start if end is None else end)
    assert start is not None and end is not None
    if family.reading == "decoder":
        # A start token also stands for an empty text; the last token of the text itself is what is pooled.
        return Layout((start,), (end,), (), pad or 0)
    return Layout((start,), (end,) * (2 if family.double_separator else 1), (end,), pad or 0)


def _split(tokenizer: Any, pieces: Mapping[str, Any]) -> Split:
    """How the tokenizer was trained to cut a text: a Hugging Face folder says it, else the family does."""
    if pieces:
        pattern = json.dumps(pieces)
        return "llama3" if "(?i:" in pattern else "bloom" if "|[.,!?" in pattern else "gpt2"
    name = type(tokenizer).__name__.removesuffix("Tokenizer")
    return "llama3" if name in _LLAMA3_SPLIT else "bloom" if name == "Bloom" else "gpt2"


def _class_of(preset: str) -> type:
    """The keras_hub class of a preset's backbone."""
    from keras_hub import models

    for known in _subclasses(models.Backbone):
        if preset in getattr(known, "presets", {}):
            return known
    from keras_hub.src.utils.preset_utils import get_preset_loader

    with _explained(preset):
        return get_preset_loader(preset).check_backbone_class()


def _subclasses(base: Any) -> list[Any]:
    """Every class below, the deepest first: a preset of Llama 3 is one of Llama, too."""
    return [below for direct in base.__subclasses__() for below in (*_subclasses(direct), direct)]


@contextlib.contextmanager
def _explained(preset: str) -> Any:
    """Says what failed about a preset, and what to do."""
    try:
        # keras_hub writes the progress of a download to standard output, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except hugging_face.Incomplete:
        raise
    except Exception as error:  # Hubs, tokenizers and checkpoints raise errors of many libraries.
        reason = f"{type(error).__name__}: {error}"
        if Path(preset).is_dir():
            raise ValueError(
                f"backbone.name: the preset folder {preset} could not be loaded ({reason}). Expected what keras_hub's "
                "save_to_preset, or transformers' save_pretrained of a model and its tokenizer, write."
            ) from error
        raise ValueError(
            f"The keras_hub preset {preset!r} could not be fetched ({reason}). On a machine with internet access run "
            f"keras_hub.models.Backbone.from_preset({preset!r}).save_to_preset(FOLDER), and the same for "
            "keras_hub.tokenizers.Tokenizer; copy FOLDER here and give it as backbone.name=FOLDER. Or use the sample "
            "minilm, or smollm2."
        ) from error
