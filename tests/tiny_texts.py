"""Tiny random text backbones on disk, vocabulary included, in the forms in which a user may have one.

Their tokenizers know the words of the made reviews of `tiny_tfds`, and byte pairs or letters for all others.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

CORPUS = (
    "a warm and clever film", "great fun from start to end", "the actors are wonderful", "a joy to watch",
    "a dull and clumsy film", "boring from start to end", "the actors are terrible", "a pain to watch",
    "Don't miss it!", "It's 10 out of 10.", "  two spaces, and\ttabs\n", "what is the capital of France? Paris is.",
)  # fmt: skip
WORDS = sorted({word for text in CORPUS for word in text.lower().replace("?", "").replace(".", "").split()})
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZE = {"num_layers": 3, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 64}


def word_pieces() -> list[str]:
    """A vocabulary of WordPiece: whole words, and letters for the others."""
    letters = string.ascii_lowercase + string.digits
    words = [word for word in WORDS if word.isalpha() and len(word) > 1]
    return [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *"!?.,'[]-", *words]


def byte_pairs(end: str = "<|endoftext|>", size: int = 330) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of byte pairs, trained on the corpus."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=[end], initial_alphabet=alphabet)
    )
    plain = json.loads(trained.to_str())["model"]
    return plain["vocab"], [merge if isinstance(merge, str) else " ".join(merge) for merge in plain["merges"]]


def write_bert(folder: Path, **size: Any) -> Path:
    """A BERT in Keras's form."""
    import keras_hub

    vocabulary = word_pieces()
    keras_hub.models.BertBackbone(vocabulary_size=len(vocabulary), **{**SIZE, **size}).save_to_preset(str(folder))
    keras_hub.models.BertTokenizer(vocabulary=vocabulary, lowercase=True).save_to_preset(str(folder))
    return folder


def write_gpt2(folder: Path, **size: Any) -> Path:
    """A GPT-2 in Keras's form."""
    import keras_hub

    vocabulary, merges = byte_pairs()
    keras_hub.models.GPT2Backbone(vocabulary_size=len(vocabulary), **{**SIZE, **size}).save_to_preset(str(folder))
    keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=merges).save_to_preset(str(folder))
    return folder


def write_llama3(folder: Path, **size: Any) -> Path:
    """A Llama 3 in Keras's form: no learnt positions, fewer keys than queries."""
    import keras_hub

    vocabulary, merges = byte_pairs("<|begin_of_text|>")
    special = ["<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    vocabulary |= {token: len(vocabulary) + number for number, token in enumerate(special)}
    sizes = {"num_layers": 3, "hidden_dim": 16, "intermediate_dim": 32, "num_query_heads": 2, "num_key_value_heads": 1}
    network = keras_hub.models.Llama3Backbone(vocabulary_size=len(vocabulary), **{**sizes, **size})
    network.save_to_preset(str(folder))
    keras_hub.models.Llama3Tokenizer(vocabulary=vocabulary, merges=merges).save_to_preset(str(folder))
    return folder


def write_roberta(folder: Path, **size: Any) -> Path:
    """A RoBERTa in Keras's form."""
    import keras_hub

    found, merges = byte_pairs()
    tokens = ["<s>", "<pad>", "</s>", "<mask>", *(token for token in found if token != "<|endoftext|>")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    keras_hub.models.RobertaBackbone(vocabulary_size=len(tokens), **{**SIZE, **size}).save_to_preset(str(folder))
    keras_hub.models.RobertaTokenizer(vocabulary=vocabulary, merges=merges).save_to_preset(str(folder))
    return folder


def write_hugging_face_bert(folder: Path) -> Path:
    """A BERT in Hugging Face's form."""
    vocabulary = word_pieces()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", {"do_lower_case": True})
    return _write(folder, *_hugging_face_encoder("bert", len(vocabulary), segments=2))


def write_hugging_face_roberta(folder: Path) -> Path:
    """A RoBERTa in Hugging Face's form, bare: names without prefix, and a segment embedding that has learnt."""
    found, merges = byte_pairs()
    tokens = ["<s>", "<pad>", "</s>", "<mask>", *(token for token in found if token != "<|endoftext|>")]
    folder.mkdir(parents=True, exist_ok=True)
    _write_byte_pairs(folder, {token: number for number, token in enumerate(tokens)}, merges)
    # The first two places are not used.
    return _write(folder, *_hugging_face_encoder("roberta", len(tokens), segments=1, unused=2))


def write_hugging_face_xlm_roberta(folder: Path) -> Path:
    """An XLM-RoBERTa as transformers 5 saves it: pieces of a unigram model in `tokenizer.json` alone."""
    whole = tokenizers.Tokenizer(models.Unigram())
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    whole.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=90, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>"),
    )
    whole.add_special_tokens(["<mask>"])
    folder.mkdir(parents=True, exist_ok=True)
    whole.save(str(folder / "tokenizer.json"))
    return _write(folder, *_hugging_face_encoder("xlm-roberta", whole.get_vocab_size(), segments=1, unused=2))


def _hugging_face_encoder(
    kind: str, tokens: int, segments: int, unused: int = 0
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """config.json, and the shapes of the weights."""
    width, inner, places = SIZE["hidden_dim"], SIZE["intermediate_dim"], SIZE["max_sequence_length"] + unused
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (tokens, width),
        "embeddings.position_embeddings.weight": (places, width),
        "embeddings.token_type_embeddings.weight": (segments, width),
        **_norm("embeddings.LayerNorm", width),
        **_dense("pooler.dense", width, width),
    }
    for number in range(SIZE["num_layers"]):
        layer = f"encoder.layer.{number}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _dense(f"{layer}.attention.{name}", width, width)
        shapes |= _norm(f"{layer}.attention.output.LayerNorm", width) | _norm(f"{layer}.output.LayerNorm", width)
        shapes |= _dense(f"{layer}.intermediate.dense", inner, width) | _dense(f"{layer}.output.dense", width, inner)
    config = {
        "model_type": kind,
        "vocab_size": tokens,
        "hidden_size": width,
        "num_hidden_layers": SIZE["num_layers"],
        "num_attention_heads": SIZE["num_heads"],
        "intermediate_size": inner,
        "hidden_dropout_prob": 0.1,
        "max_position_embeddings": places,
    }
    return config, shapes


def write_hugging_face_gpt2(folder: Path) -> Path:
    """A GPT-2 in Hugging Face's form."""
    vocabulary, merges = byte_pairs()
    width = SIZE["hidden_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (len(vocabulary), width),
        "wpe.weight": (SIZE["max_sequence_length"], width),
        **_norm("ln_f", width),
    }
    for number in range(SIZE["num_layers"]):
        layer = f"h.{number}"
        shapes |= _norm(f"{layer}.ln_1", width) | _norm(f"{layer}.ln_2", width)
        # GPT-2's matrices are stored as inputs by outputs.
        for name, inputs, outputs in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            shapes |= {f"{layer}.{name}.weight": (inputs, outputs), f"{layer}.{name}.bias": (outputs,)}
    config = {
        "model_type": "gpt2",
        "vocab_size": len(vocabulary),
        "n_embd": width,
        "n_layer": SIZE["num_layers"],
        "n_head": SIZE["num_heads"],
        "n_inner": None,
        "n_positions": SIZE["max_sequence_length"],
        "resid_pdrop": 0.1,
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write_byte_pairs(folder, vocabulary, merges)
    return _write(folder, config, shapes)


def only_tokenizer_json(folder: Path, lowercase: bool = True, prefix_space: bool = False) -> Path:
    """The same folder as transformers 5 saves it: `tokenizer.json`, and no other file of the vocabulary."""
    if (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
        pieces = models.WordPiece({token: number for number, token in enumerate(lines)}, unk_token="[UNK]")
        whole = tokenizers.Tokenizer(pieces)
        whole.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        whole.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    else:
        vocabulary, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
        whole = tokenizers.Tokenizer(models.BPE.from_file(vocabulary, merges))
        whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    whole.save(str(folder / "tokenizer.json"))
    for name in ("vocab.txt", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)
    return folder


def _write_byte_pairs(folder: Path, vocabulary: dict[str, int], merges: list[str]) -> None:
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges), encoding="utf-8")


def _dense(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _write(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, str(folder / "model.safetensors"))
    _write_json(folder / "config.json", config)
    return folder


def _write_json(path: Path, plain: Any) -> None:
    path.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
