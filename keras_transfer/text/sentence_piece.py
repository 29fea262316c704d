"""SentencePiece's own file, made from the `tokenizer.json` of a unigram model.

Source of the fields: sentencepiece_model.proto of github.com/google/sentencepiece. Written by hand, since no package
that is needed otherwise brings its classes; fields that are left out have SentencePiece's defaults (unigram, a space
put before the text, spaces written as ▁).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

NORMAL, UNKNOWN, CONTROL = 1, 2, 3
"""Types of a piece: found in texts, what stands for the rest, never found in texts."""
XLM_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")


def proto(whole: Mapping[str, Any], as_xlm_roberta: bool = False) -> bytes:
    """The file of a `tokenizer.json`.

    Args:
        whole: `tokenizer.json`, its model of the type Unigram.
        as_xlm_roberta: its ids are not those of the file: `<s> <pad> </s> <unk>`, the pieces and `<mask>`, where the
            file has `<unk> <s> </s>` and the pieces.

    Raises:
        ValueError: the ids are not XLM-RoBERTa's.
    """
    vocabulary: Sequence[Any] = whole["model"]["vocab"]
    special = {token["content"] for token in whole.get("added_tokens", ()) if token.get("special", True)}
    unknown = whole["model"].get("unk_id")
    unknown = vocabulary[unknown][0] if unknown is not None else "<unk>"
    if as_xlm_roberta:
        pieces = [(name, score) for name, score in vocabulary if name not in special | {unknown}]
        if [*_names(vocabulary[:4]), *_names(pieces)] != [*XLM_ROBERTA, *_names(vocabulary[4 : 4 + len(pieces)])]:
            raise ValueError(f"expected the tokens {' '.join(XLM_ROBERTA)}, then the pieces, in tokenizer.json")
        vocabulary = [(unknown, 0.0), ("<s>", 0.0), ("</s>", 0.0), *pieces]
    parts = []
    for name, score in vocabulary:
        kind = UNKNOWN if name == unknown else CONTROL if name in special else NORMAL
        piece = _bytes(1, name.encode()) + _key(2, 5) + struct.pack("<f", score) + _key(3, 0) + _varint(kind)
        parts.append(_bytes(1, piece))
    return b"".join(parts) + _bytes(3, _bytes(2, _characters(whole.get("normalizer"))))


def _names(vocabulary: Sequence[Any]) -> list[str]:
    return [name for name, _ in vocabulary]


def _characters(normalizer: Any) -> bytes:
    """The compiled table by which characters are replaced, wherever it is in the normalizer; empty for none."""
    if not isinstance(normalizer, Mapping):
        return b""
    if normalizer.get("type") == "Precompiled":
        return base64.b64decode(normalizer["precompiled_charsmap"])
    return next(filter(None, map(_characters, normalizer.get("normalizers", ()))), b"")


def _bytes(field: int, value: bytes) -> bytes:
    """A field of text, bytes or a message."""
    return _key(field, 2) + _varint(len(value)) + value


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
