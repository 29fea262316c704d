"""Tests of `text.tokenizing`, `text.byte_pairs` and `text.packing`."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
import tiny_texts
import tokenizers
from tokenizers import Regex, models, pre_tokenizers

from keras_transfer.text import packing
from keras_transfer.text.byte_pairs import LONGEST_PIECE, BytePairs
from keras_transfer.text.tokenizing import Layout, Tokenizer, TokenizerSpec

TRICKY = (
    "", " ", "a", "a  b", "a   's x", "  lead", "trail  ", "a\n\nb", "a \n b", "x\t\ty", "日本語テスト", "emoji 😀😀 x",
    "\r\nfoo\r\n", "don't I'LL we'Re", "12345 678", "café e\u0301", "\xa0\xa0hi \u3000x", "!!!  ...", "\u2028x",
    "a \u200b b", "  !", "a \xa0b", "x \n\n  y", "the wonderful film", "\x01\x02", "ǅ İ ß", "६ six", "<|endoftext|>",
)  # fmt: skip
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


@functools.cache
def _word_pieces() -> Tokenizer:
    vocabulary = tuple(tiny_texts.word_pieces())
    pad, unknown, start, end = (vocabulary.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    layout = Layout((start,), (end,), (end,), pad)
    return Tokenizer(TokenizerSpec("wordpiece", layout, vocabulary, lowercase=True, unknown=unknown))


@functools.cache
def _byte_pairs(split: str = "gpt2", prefix_space: bool = False) -> Tokenizer:
    vocabulary, merges = tiny_texts.byte_pairs()
    tokens = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    layout = Layout((0,), (0,), ())
    return Tokenizer(
        TokenizerSpec("byte_pairs", layout, tokens, tuple(merges), split=split, prefix_space=prefix_space)  # type: ignore[arg-type]
    )


def _reference(split: str) -> tokenizers.Tokenizer:
    """Hugging Face's tokenizer of the same vocabulary."""
    vocabulary, merges = tiny_texts.byte_pairs()
    pairs = [(merge.split(" ")[0], merge.split(" ")[1]) for merge in merges]
    reference = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    if split == "gpt2":
        reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        cut = pre_tokenizers.Split(Regex(LLAMA3 if split == "llama3" else BLOOM), "isolated")
        bare = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        reference.pre_tokenizer = pre_tokenizers.Sequence([cut, bare])
    return reference


def _random_texts(count: int) -> list[str]:
    """Texts of letters, spaces of all kinds, digits and signs, in any order."""
    letters = "aabbthe filmwonder  \t\n\r\u3000'sd12!?.-(|)…é日😀"
    random = np.random.default_rng(0)
    return ["".join(random.choice(list(letters), random.integers(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("split", ["gpt2", "llama3", "bloom"])
def test_byte_pairs_are_those_of_the_reference_tokenizer(split: str) -> None:
    texts = [*TRICKY, *tiny_texts.CORPUS, *_random_texts(300)]
    ours = _byte_pairs(split).encode(texts)
    theirs = _reference(split).encode_batch(texts)
    different = [text for text, a, b in zip(texts, ours, theirs, strict=True) if a.tolist() != b.ids]
    assert not different
    assert max(len(row) for row in ours) > 5


def test_bytes_of_byte_pairs_join_to_the_text() -> None:
    texts = [*TRICKY, *_random_texts(100), "x" * (3 * LONGEST_PIECE), "日" * LONGEST_PIECE, "a\U0010ffffb  c"]
    for text, (ids, starts, ends) in zip(texts, _byte_pairs().encode_with_offsets(texts), strict=True):
        data = text.encode()
        assert b"".join(data[start:end] for start, end in zip(starts, ends, strict=True)) == data
        assert len(ids) == len(starts)


def test_a_nul_does_not_end_a_text() -> None:
    tokenizer = _byte_pairs()
    with_nul, with_other = tokenizer.encode(["the\x00 film", "the\x01 film"])
    assert with_nul.tolist() == with_other.tolist()
    assert len(with_nul) > len(tokenizer.encode(["the"])[0])


def test_a_space_before_the_text_does_not_move_its_offsets() -> None:
    (with_space,) = _byte_pairs(prefix_space=True).encode_with_offsets(["the film"])
    (plain,) = _byte_pairs().encode_with_offsets([" the film"])
    assert with_space[0].tolist() == plain[0].tolist()
    assert with_space[2].tolist() == [end - 1 for end in plain[2].tolist()]
    assert with_space[1].min() == 0


def test_bytes_outside_the_vocabulary_become_the_unknown_token() -> None:
    core = BytePairs(["a", "b", "ab", "<unk>"], ["a b"], unknown=3)
    ids, _, _ = core.tokenize_with_offsets(tf.constant(["abz"]))
    assert ids.to_list() == [[2, 3]]


def test_byte_pairs_work_without_any_merge() -> None:
    ids, _, _ = BytePairs(["a", "b"], []).tokenize_with_offsets(tf.constant(["ab", ""]))
    assert ids.to_list() == [[0, 1], []]


def test_word_pieces_drop_case_and_accents_and_split_words() -> None:
    tokenizer = _word_pieces()
    names = tokenizer.spec.vocabulary

    def tokens(text: str) -> list[str]:
        return [names[number] for number in tokenizer.encode([text])[0]]

    assert tokens("A Wonderful FILM!") == ["a", "wonderful", "film", "!"]
    assert tokens("thé") == ["the"]
    assert tokens("xy") == ["x", "##y"]
    assert tokens("日") == ["[UNK]"]
    assert tokens("") == []


def test_word_piece_offsets_are_bytes_of_the_original_text() -> None:
    text = "é wonderful café\r\nfilm"
    (ids, starts, ends) = _word_pieces().encode_with_offsets([text])[0]
    data = text.encode()
    assert [data[s:e].decode() for s, e in zip(starts, ends, strict=True)][:2] == ["é", "wonderful"]
    assert data[starts[-1] : ends[-1]] == b"film"
    assert len(ids) == len(starts)


def test_special_tokens_are_not_read_from_a_text() -> None:
    tokenizer = _word_pieces()
    assert tokenizer.layout.suffix[0] not in tokenizer.encode(["[SEP]"])[0]
    assert 0 not in _byte_pairs().encode(["<|endoftext|>"])[0]


@pytest.mark.parametrize("make", [_word_pieces, _byte_pairs])
def test_a_tokenizer_survives_json(make) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make()
    again = Tokenizer.from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert again.spec == tokenizer.spec
    assert again.identity == tokenizer.identity
    assert [row.tolist() for row in again.encode(TRICKY)] == [row.tolist() for row in tokenizer.encode(TRICKY)]


def test_identity_differs_between_tokenizers() -> None:
    assert _word_pieces().identity != _byte_pairs().identity != _byte_pairs("llama3").identity


@pytest.mark.parametrize("make", [_word_pieces, _byte_pairs])
def test_bytes_that_are_no_text_do_not_stop_a_batch(make) -> None:  # type: ignore[no-untyped-def]
    ids = make().graph_encode(tf.constant([b"\xff\xfe film", b"film"]))
    assert ids.nrows() == 2
    assert ids.row_lengths().numpy().min() > 0


def _packed(tokenizer: Tokenizer, first: Sequence[str], second: Sequence[str] | None, length: int) -> list[list[int]]:
    ids, segments = tokenizer.graph_pack(
        tokenizer.encode_ragged(first), None if second is None else tokenizer.encode_ragged(second), length
    )
    assert [len(row) for row in segments.to_list()] == [len(row) for row in ids.to_list()]
    return ids.to_list()


def test_packing_keeps_the_start_and_the_end_of_a_long_text() -> None:
    tokenizer = _word_pieces()
    start, end = tokenizer.layout.prefix[0], tokenizer.layout.suffix[0]
    letters = tokenizer.encode(["a b c d e f g h i j"])[0].tolist()
    long, short, empty = _packed(tokenizer, ["a b c d e f g h i j", "a b", ""], None, 10)
    assert long == [start, *letters[:2], *letters[-6:], end]
    assert short == [start, *letters[:2], end]
    assert empty == [start, end]


def test_the_shorter_of_two_texts_keeps_up_to_half_of_the_room() -> None:
    tokenizer = _word_pieces()
    start, end = tokenizer.layout.prefix[0], tokenizer.layout.suffix[0]
    letters = tokenizer.encode(["a b c d e f g h i j"])[0].tolist()
    long = "a b c d e f g h i j"
    both, second_short, first_short = _packed(tokenizer, [long, long, "a"], [long, "a", long], 11)
    assert both == [start, letters[0], *letters[-3:], end, letters[0], *letters[-3:], end]
    assert second_short == [start, *letters[:2], *letters[-5:], end, letters[0], end]
    assert first_short == [start, letters[0], end, *letters[:2], *letters[-5:], end]


def test_segments_tell_two_texts_apart() -> None:
    tokenizer = _word_pieces()
    one = tokenizer.encode_ragged(["a b"])
    _, segments = tokenizer.graph_pack(one, one, 16)
    assert segments.to_list() == [[0, 0, 0, 0, 1, 1, 1]]


def test_dense_inputs_are_padded_and_an_empty_batch_has_a_token() -> None:
    tokenizer = _byte_pairs()
    names = ("token_ids", "padding_mask", "segment_ids")
    inputs = tokenizer.dense(*tokenizer.graph_pack(tokenizer.encode_ragged(["film", ""]), None, 8), names)
    assert set(inputs) == set(names)
    assert inputs["padding_mask"].numpy()[1].tolist() == [1] + [0] * (inputs["token_ids"].shape[1] - 1)
    empty = tokenizer.dense(*tokenizer.graph_pack(tokenizer.encode_ragged([]), None, 8), names)
    assert empty["token_ids"].shape == (0, 1)


@pytest.mark.parametrize("make", [_word_pieces, _byte_pairs])
def test_the_graph_is_saved_and_gives_the_same_ids(make, tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = make()

    def tokens(texts: tf.Tensor) -> tf.Tensor:
        return tokenizer.dense(*tokenizer.graph_pack(tokenizer.graph_encode(texts), None, 12), ["token_ids"])

    module = tf.Module()
    module.resources = tokenizer.resources
    module.tokens = tf.function(tokens, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    texts = tf.constant([*TRICKY, "the film " * 20])
    np.testing.assert_array_equal(loaded.tokens(texts)["token_ids"], tokens(texts)["token_ids"])
    assert loaded.tokens(tf.constant([], tf.string))["token_ids"].shape[0] == 0


def test_packed_batches_hold_what_packing_gives() -> None:
    tokenizer = _word_pieces()
    texts = [("a b c",), ("the wonderful film",), ("",), ("a " * 50,)]
    packed = packing.pack(tokenizer, texts, 16)
    expected = _packed(tokenizer, [text for (text,) in texts], None, 16)
    assert packed.lengths.tolist() == [len(row) for row in expected]
    batch = packed.batch(tf.constant([3, 0], tf.int64), tf.constant(16), ("token_ids", "padding_mask", "segment_ids"))
    assert batch["token_ids"].numpy()[0].tolist() == expected[3]
    assert batch["token_ids"].numpy()[1].tolist() == expected[0] + [tokenizer.layout.pad] * (16 - len(expected[0]))
    assert batch["padding_mask"].numpy().sum(1).tolist() == [16, len(expected[0])]
    one = packed.one(tf.constant(1, tf.int64), ("token_ids", "padding_mask"))
    assert one["token_ids"].numpy().tolist() == expected[1]


def test_packing_many_texts_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, texts = _byte_pairs(), [(text, "end") for text in TRICKY]
    whole = packing.pack(tokenizer, texts, 20)
    monkeypatch.setattr(packing, "TEXTS_AT_ONCE", 3)
    parts = packing.pack(tokenizer, texts, 20)
    np.testing.assert_array_equal(whole.ids, parts.ids)
    np.testing.assert_array_equal(whole.segments, parts.segments)
    np.testing.assert_array_equal(whole.lengths, parts.lengths)


def test_packing_nothing() -> None:
    assert packing.pack(_word_pieces(), [], 16).lengths.shape == (0,)


def test_the_length_comes_from_the_data_unless_it_is_given() -> None:
    tokenizer = _word_pieces()
    texts = [("a b c d",)] * 199 + [("a " * 60,)]
    length, said = packing.choose_length(tokenizer, texts, 0, 64)
    assert length == 16
    assert "16 tokens" in said and "0.5%" in said
    assert packing.choose_length(tokenizer, texts, 40, 64)[0] == 40
    assert packing.choose_length(tokenizer, [("a " * 60,)], 0, 32)[0] == 32


def test_buckets_end_with_the_length() -> None:
    assert packing.buckets(64) == (16, 24, 32, 40, 48, 64)
    assert packing.buckets(20) == (16, 20)
    assert packing.buckets(8) == (8,)
