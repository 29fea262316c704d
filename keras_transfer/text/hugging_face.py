"""Hugging Face folders, made complete for keras_hub's converters.

What transformers 5 writes and keras_hub 0.32 cannot read, or reads wrongly:

- A tokenizer is `tokenizer.json` alone; the converters want `vocab.txt` (BERT, DistilBERT), `vocab.json` and
  `merges.txt` (RoBERTa, GPT-2), or SentencePiece's own file.
- The weights of a bare model (RobertaModel, as sentence-transformers save it) have no prefix; the converters of
  RoBERTa, DistilBERT and ALBERT look for one.
- A BERT that was trained on masked words has no pooler; the converter wants one.
- RoBERTa's one segment embedding is zero as published, but learns when it is trained further; its converter drops it
  (that of XLM-RoBERTa does not).
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_transfer.text import sentence_piece

TOKENIZER, WEIGHTS, SHARDS = "tokenizer.json", "model.safetensors", "model.safetensors.index.json"
VOCABULARY = {
    **dict.fromkeys(("bert", "distilbert"), "vocab.txt"),
    **dict.fromkeys(("roberta", "gpt2"), "vocab.json"),
    "albert": "spiece.model",
    "xlm-roberta": "sentencepiece.bpe.model",
}
"""By the `model_type` of config.json: the file without which keras_hub has no tokenizer, and which can be made."""
PREFIXED = ("roberta", "distilbert", "albert")


class Incomplete(ValueError):
    """Something is missing that cannot be made of the rest; the message says what, and the mend."""


@contextlib.contextmanager
def completed(preset: str, weights: bool = True) -> Iterator[str]:
    """The folder to load instead: the same, or one of links to its files beside those that were made or mended.

    Args:
        preset: what the user named; all but a folder in Hugging Face's form is handed back.
        weights: whether they are needed.

    Raises:
        Incomplete: what is missing cannot be made.
    """
    folder = Path(preset)
    kind = model_type(folder)
    if not kind:
        yield preset
        return
    made = _vocabulary(folder, kind)
    tensors = _mended(folder, kind) if weights else None
    if not made and tensors is None:
        yield preset
        return
    with tempfile.TemporaryDirectory() as name:
        beside = Path(name)
        for file in folder.iterdir():
            if file.is_file() and file.name not in made and not (file.name == WEIGHTS and tensors is not None):
                (beside / file.name).symlink_to(file.resolve())
        for file_name, content in made.items():
            (beside / file_name).write_bytes(content)
        if tensors is not None:
            from safetensors.numpy import save_file

            save_file(tensors, beside / WEIGHTS)
            del tensors
        yield name


def model_type(folder: Path) -> str:
    """What `config.json` says; empty for a folder in another form, or none."""
    found = _read(folder / "config.json")
    return str(found.get("model_type", "")) if isinstance(found, dict) else ""


def pre_tokenizer(preset: str) -> dict[str, Any]:
    """How a folder's `tokenizer.json` cuts a text into pieces; empty where it says nothing, or is none."""
    found = _read(Path(preset) / TOKENIZER) if preset else None
    return (found.get("pre_tokenizer") or {}) if isinstance(found, dict) else {}


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _vocabulary(folder: Path, kind: str) -> dict[str, bytes]:
    """Content by name of the files of the tokenizer that are not there, made from `tokenizer.json`."""
    wanted = VOCABULARY.get(kind)
    whole = _read(folder / TOKENIZER)
    if wanted is None or (folder / wanted).is_file() or not isinstance(whole, dict):
        return {}
    model = whole.get("model", {})
    if wanted == "vocab.txt" and model.get("type") == "WordPiece":
        return {wanted: "".join(f"{token}\n" for token in _tokens(whole)).encode(), **_case(folder, whole)}
    if wanted == "vocab.json" and model.get("type") == "BPE":
        ids = {token: number for number, token in enumerate(_tokens(whole))}
        merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
        lines = "".join(f"{merge}\n" for merge in ("#version: 0.2", *merges))
        return {wanted: json.dumps(ids).encode(), "merges.txt": lines.encode()}
    if kind in ("albert", "xlm-roberta") and model.get("type") == "Unigram":
        return {wanted: sentence_piece.proto(whole, as_xlm_roberta=kind == "xlm-roberta")}
    raise Incomplete(
        f"backbone.name: expected {wanted} in {folder}. Received: {TOKENIZER} alone, of the kind {model.get('type')}, "
        f"from which it cannot be made. Copy {wanted} of the model that this one was trained from into the folder."
    )


def _tokens(whole: Mapping[str, Any]) -> list[str]:
    """All tokens in the order of their ids; a number without one gets a name that no text has."""
    ids = {**whole["model"]["vocab"], **{added["content"]: added["id"] for added in whole.get("added_tokens", ())}}
    names = {number: token for token, number in ids.items()}
    return [names.get(number, f"[unnamed {number}]") for number in range(max(names) + 1)]


def _case(folder: Path, whole: Mapping[str, Any]) -> dict[str, bytes]:
    """tokenizer_config.json with whether texts are lowered, which keras_hub asks it, where it does not say that."""
    config = _read(folder / "tokenizer_config.json") or {}
    if "do_lower_case" in config:
        return {}
    lowered = bool((whole.get("normalizer") or {}).get("lowercase", False))
    return {"tokenizer_config.json": json.dumps({**config, "do_lower_case": lowered}).encode()}


def _mended(folder: Path, kind: str) -> dict[str, np.ndarray] | None:
    """All weights by the names that the converter looks for; None where they are as it expects.

    Raises:
        Incomplete: the weights are in another file.
    """
    if not (folder / WEIGHTS).is_file():
        others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".h5", ".msgpack", ".pt"))
        if others and not (folder / SHARDS).is_file():
            raise Incomplete(
                f"backbone.name: expected weights as {WEIGHTS} in {folder}. Received: {', '.join(others)}. Where "
                "transformers is installed: AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER)."
            )
        return None
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="np") as file:
        names = list(file.keys())
        prefix = f"{kind}." if kind in PREFIXED and not any(name.startswith(f"{kind}.") for name in names) else ""
        pooler = kind == "bert" and not any(name.endswith("pooler.dense.weight") for name in names)
        segments = [name for name in names if kind == "roberta" and name.endswith("token_type_embeddings.weight")]
        segment = file.get_tensor(segments[0])[0] if segments else np.zeros(1)
        if not prefix and not pooler and not segment.any():
            return None
        found = {f"{prefix}{name}": file.get_tensor(name) for name in names}
    if segment.any():
        # Each token gets a position and this one segment: their sum is the same.
        places = next(name for name in found if name.endswith("position_embeddings.weight"))
        found[places] = found[places] + segment.astype(found[places].dtype)
    if pooler:
        width = next(value.shape[1] for name, value in found.items() if name.endswith("word_embeddings.weight"))
        root = next(name for name in found if name.endswith("embeddings.word_embeddings.weight"))
        root = root.removesuffix("embeddings.word_embeddings.weight")
        found |= {
            f"{root}pooler.dense.weight": np.zeros((width, width), np.float32),
            f"{root}pooler.dense.bias": np.zeros(width, np.float32),
        }
    return found
