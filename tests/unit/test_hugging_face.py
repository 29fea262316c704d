"""Tests of folders in Hugging Face's form, as transformers 5 writes them."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_text as tf_text
import tiny_texts
import tokenizers
from safetensors.numpy import load_file, save_file

from keras_transfer.text import hugging_face, pretrained, sentence_piece
from keras_transfer.text.pretrained import TextNetwork

TEXT = "Don't miss it, a warm and clever film!"


def _features(network: TextNetwork) -> np.ndarray:
    """[1, T, F] of the text."""
    tokenizer = network.tokenizer
    ids, segments = tokenizer.graph_pack(tokenizer.encode_ragged([TEXT]), None, 64)
    dense = tokenizer.dense(ids, segments, [tensor.name for tensor in network.model.inputs])
    return np.asarray(network.model(dense, training=False))


@pytest.mark.parametrize("write", [tiny_texts.write_hugging_face_bert, tiny_texts.write_hugging_face_gpt2])
def test_a_tokenizer_may_be_tokenizer_json_alone(tmp_path: Path, write) -> None:
    folder = write(tmp_path / "model")
    before = pretrained.load(str(folder))
    after = pretrained.load(str(tiny_texts.only_tokenizer_json(folder)))
    assert after.tokenizer.spec == before.tokenizer.spec
    np.testing.assert_array_equal(_features(after), _features(before))


def test_upper_case_and_a_space_in_front_are_as_tokenizer_json_says(tmp_path: Path) -> None:
    bert = tiny_texts.only_tokenizer_json(tiny_texts.write_hugging_face_bert(tmp_path / "bert"), lowercase=False)
    assert not pretrained.load(str(bert)).tokenizer.spec.lowercase
    gpt2 = tiny_texts.only_tokenizer_json(tiny_texts.write_hugging_face_gpt2(tmp_path / "gpt2"), prefix_space=True)
    assert pretrained.load(str(gpt2)).tokenizer.spec.prefix_space


def test_tokens_that_were_added_keep_their_numbers(tmp_path: Path) -> None:
    folder = tiny_texts.only_tokenizer_json(tiny_texts.write_hugging_face_bert(tmp_path / "bert"))
    file = folder / "tokenizer.json"
    whole = json.loads(file.read_text())
    size = len(whole["model"]["vocab"])
    file.write_text(json.dumps({**whole, "added_tokens": [{"id": size + 1, "content": "[NEW]"}]}))
    with hugging_face.completed(str(folder), weights=False) as complete:
        lines = (Path(complete) / "vocab.txt").read_text().splitlines()
    assert len(lines) == size + 2 and lines[size + 1] == "[NEW]" and len(set(lines)) == len(lines)
    assert not Path(complete).exists() and not (folder / "vocab.txt").exists()


def test_an_xlm_roberta_counts_its_segment_once(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_xlm_roberta(tmp_path / "model")
    before = _features(pretrained.load(str(folder)))
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.position_embeddings.weight"] += weights["embeddings.token_type_embeddings.weight"]
    weights["embeddings.token_type_embeddings.weight"][:] = 0
    save_file(weights, folder / "model.safetensors")
    np.testing.assert_allclose(_features(pretrained.load(str(folder))), before, atol=1e-5)


def test_a_bare_roberta_is_read_with_the_segment_that_it_learnt(tmp_path: Path) -> None:
    bare = tiny_texts.write_hugging_face_roberta(tmp_path / "bare")
    plain = Path(shutil.copytree(bare, tmp_path / "plain"))
    weights = load_file(bare / "model.safetensors")
    # As keras_hub reads them: a prefix, and no segment but what the places hold.
    segment = weights.pop("embeddings.token_type_embeddings.weight")
    assert segment.any()
    weights["embeddings.position_embeddings.weight"] += segment
    save_file({f"roberta.{name}": value for name, value in weights.items()}, plain / "model.safetensors")
    with hugging_face.completed(str(plain)) as complete:
        assert complete == str(plain), "nothing to mend"
    np.testing.assert_array_equal(_features(pretrained.load(str(bare))), _features(pretrained.load(str(plain))))


def test_pieces_of_a_unigram_model_are_those_of_its_own_tokenizer(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_xlm_roberta(tmp_path / "model")
    original = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    network = pretrained.load(str(folder))
    for text in (*tiny_texts.CORPUS, "unknown ☃ letters"):
        # This one replaces no characters: a tab would stay one.
        text = " ".join(text.split())
        assert network.tokenizer.encode([text])[0].tolist() == original.encode(text).ids, text
    special = set(network.tokenizer.encode(["<s> in a text</s>"])[0].tolist()) & {0, 1, 2}
    assert not special
    assert np.isfinite(_features(network)).all()


def test_the_file_of_a_unigram_model_has_the_ids_of_tokenizer_json(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_xlm_roberta(tmp_path / "model")
    text = (folder / "tokenizer.json").read_text()
    made = tf_text.SentencepieceTokenizer(model=sentence_piece.proto(json.loads(text)))
    assert made.tokenize(TEXT).numpy().tolist() == tokenizers.Tokenizer.from_str(text).encode(TEXT).ids


def test_characters_are_replaced_as_the_original_file_says() -> None:
    table = b"any bytes"
    normalizer = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Lowercase"},
            {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()},
        ],
    }
    whole = {"model": {"vocab": [["<unk>", 0.0], ["a", -1.5]], "unk_id": 0}, "normalizer": normalizer}
    assert sentence_piece.proto(whole).endswith(bytes([3 << 3 | 2, len(table) + 2, 2 << 3 | 2, len(table)]) + table)


def test_a_bert_without_pooler_is_loaded_but_not_pooled_by_it(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_bert(tmp_path / "bert")
    before = _features(pretrained.load(str(folder)))
    weights = load_file(folder / "model.safetensors")
    kept = {f"bert.{name}": value for name, value in weights.items() if "pooler" not in name}
    save_file(kept, folder / "model.safetensors")
    np.testing.assert_array_equal(_features(pretrained.load(str(folder))), before)
    with pytest.raises(ValueError, match="saved without a pooler. Use mean or first"):
        pretrained.load(str(folder), pooling="pooled")


def test_weights_and_vocabularies_of_other_kinds_are_named_with_the_mend(tmp_path: Path) -> None:
    folder = tiny_texts.write_hugging_face_bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"expected weights as model.safetensors.*Received: pytorch_model.bin.*save_pre"
    ):
        pretrained.load(str(folder))
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}))
    with pytest.raises(ValueError, match=r"expected vocab.txt in .*bert. Received: tokenizer.json alone.*Unigram"):
        pretrained.load(str(folder))


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    folder = tiny_texts.only_tokenizer_json(tiny_texts.write_hugging_face_bert(tmp_path / "bert"))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(ValueError, match=r"the preset folder .*bert could not be loaded \(SafetensorError"):
        pretrained.load(str(folder))
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece"}}))
    with pytest.raises(ValueError, match=r"the preset folder .*bert could not be loaded \(KeyError: 'vocab'"):
        pretrained.load(str(folder))
