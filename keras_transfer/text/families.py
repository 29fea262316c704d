"""The families of text backbones: how each is pooled and what surrounds its texts. Plain data, without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Reading = Literal["encoder", "decoder"]
Pooling = Literal["mean", "first", "last", "pooled"]
POOLINGS: tuple[Pooling, ...] = ("mean", "first", "last", "pooled")


@dataclass(frozen=True)
class TextFamily:
    """What the members of a family share."""

    name: str
    """As in the name of keras_hub's class: `Bert` of BertBackbone."""
    reading: Reading
    """An encoder's token sees the whole text, a decoder's only what is before it."""
    pooling: Pooling
    """How a sequence becomes one vector: over all tokens of an encoder; a decoder's last token has seen them all."""
    double_separator: bool = False
    """Two separators between two texts, as RoBERTa was trained."""
    reads_padding: bool = False
    """Padding is mixed into the features as any token is (FNet's Fourier transforms go over all places), so that every
    input must be padded to one length, as in its own training; the more that is, the less a short text says."""


FAMILIES: Mapping[str, TextFamily] = {
    family.name: family
    for family in (
        TextFamily("Bert", "encoder", "mean"),
        TextFamily("DistilBert", "encoder", "mean"),
        TextFamily("Roberta", "encoder", "mean", double_separator=True),
        TextFamily("XLMRoberta", "encoder", "mean", double_separator=True),
        TextFamily("Albert", "encoder", "mean"),
        TextFamily("DebertaV3", "encoder", "mean"),
        TextFamily("Electra", "encoder", "mean"),
        TextFamily("FNet", "encoder", "mean", reads_padding=True),
        *(
            TextFamily(name, "decoder", "last")
            for name in (
                "GPT2",
                "OPT",
                "GPTNeoX",
                "Bloom",
                "Falcon",
                "Llama",
                "Llama3",
                "Mistral",
                "Mixtral",
                "Gemma",
                "Phi3",
                "Qwen",
                "Qwen3",
                "SmolLM3",
                "GptOss",
            )
        ),
    )
}

# The weights samples that are text backbones, with their family and the sizes of the network, for lists and plans.
SAMPLES: Mapping[str, tuple[str, int, int]] = {
    "minilm": ("Bert", 22_565_376, 512),
    "smollm2": ("Llama3", 134_515_008, 8_192),
}
# Presets of keras_hub to begin with; any other of a family above is taken by its name, too.
WELL_KNOWN: tuple[tuple[str, str], ...] = (
    ("bert_tiny_en_uncased", "Bert"),
    ("bert_base_en_uncased", "Bert"),
    ("distil_bert_base_en_uncased", "DistilBert"),
    ("roberta_base_en", "Roberta"),
    ("gpt2_base_en", "GPT2"),
)


def names() -> list[tuple[str, str, int | None, int | None]]:
    """(name, family, parameters, longest input in tokens) of the samples, then of some presets, where it is known."""
    samples: list[tuple[str, str, int | None, int | None]] = [(name, *facts) for name, facts in SAMPLES.items()]
    return [*samples, *((name, family, None, None) for name, family in WELL_KNOWN)]


def reads_padding(family: str) -> bool:
    """Whether the family of that name needs all inputs padded to one length."""
    found = FAMILIES.get(family)
    return found is not None and found.reads_padding


def find(class_name: str) -> TextFamily | None:
    """The family of a keras_hub class (`BertBackbone`); None if it is no backbone of texts alone."""
    return FAMILIES.get(class_name.removesuffix("Backbone"))
