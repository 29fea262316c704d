"""Tests of `keras_transfer.text.windows`: every token of a context in some window, in the right place."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_transfer.text.byte_pairs import byte_characters
from keras_transfer.text.tokenizing import Layout, Tokenizer, TokenizerSpec
from keras_transfer.text.windows import Windowing, table

LETTERS = "abcdefghijklmnopqrstuvwxyz?"
VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS)
CLS, SEP, END = 2, 3, 256


@pytest.fixture(scope="module")
def encoder() -> Tokenizer:
    """Of words of one letter; [CLS] question [SEP] context [SEP]."""
    return Tokenizer(TokenizerSpec("wordpiece", Layout((2,), (3,), (3,), 0), VOCABULARY, lowercase=True, unknown=1))


@pytest.fixture(scope="module")
def decoder() -> Tokenizer:
    """Of bytes; <|endoftext|> question <|endoftext|> context, as GPT-2 has no other special token."""
    spec = TokenizerSpec("byte_pairs", Layout((END,), (END,), (), END), (*byte_characters(), "<|endoftext|>"))
    return Tokenizer(spec)


def words(count: int) -> str:
    return " ".join(LETTERS[number % 26] for number in range(count))


def test_a_short_context_is_one_window(encoder):
    found = table(Windowing(encoder, 16), ["x y"], ["a b c"])
    assert found.record.tolist() == [0]
    inputs = found.packed.one(tf.constant(0, tf.int64), ("token_ids", "segment_ids", "padding_mask"))
    x, a = 4 + LETTERS.index("x"), 4
    assert inputs["token_ids"].numpy().tolist() == [CLS, x, x + 1, SEP, a, a + 1, a + 2, SEP]
    assert inputs["segment_ids"].numpy().tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert inputs["padding_mask"].numpy().tolist() == [1] * 8
    assert (found.first[0], found.null[0], found.at[0], found.total[0]) == (4, 0, 0, 3)
    assert found.starts[0].tolist() == [0, 2, 4]
    assert found.ends[0].tolist() == [1, 3, 5]


@pytest.mark.parametrize("overlap", [0, 4, 100])
def test_windows_cover_the_context_and_share_their_overlap(encoder, overlap):
    counts = [0, 1, 10, 11, 12, 13, 14, 15, 40, 200]
    texts = [words(count) for count in counts]
    found = table(Windowing(encoder, 16, overlap), ["x y"] * len(counts), texts)
    room = 16 - 3 - 2
    shared = min(overlap, room // 2)
    assert all(size <= 16 for size in found.packed.lengths)
    for record, (count, text) in enumerate(zip(counts, texts, strict=True)):
        windows = np.flatnonzero(found.record == record)
        pieces = [list(range(found.at[w], found.at[w] + len(found.starts[w]))) for w in windows]
        assert sorted({place for piece in pieces for place in piece}) == list(range(count))
        assert len(pieces) == 1 or all(pieces), "an empty window"
        assert max([0, *(sum(place in piece for piece in pieces) for place in range(count))]) <= 2
        for left, right in zip(pieces, pieces[1:], strict=False):
            assert len(left) == room
            assert right[0] == left[-1] + 1 - shared
        for window, piece in zip(windows, pieces, strict=True):
            letters = [text[a:b] for a, b in zip(found.starts[window], found.ends[window], strict=True)]
            assert letters == [LETTERS[place % 26] for place in piece]
            ids = found.packed.one(tf.constant(window, tf.int64), ("token_ids",))["token_ids"].numpy()
            first = found.first[window]
            assert [VOCABULARY[number] for number in ids[first : first + len(piece)]] == letters


def test_the_records_keep_their_order(encoder):
    found = table(Windowing(encoder, 16, 2), ["x", "y", "z"], [words(30), "", words(3)])
    assert found.record.tolist() == sorted(found.record.tolist())
    assert set(found.record.tolist()) == {0, 1, 2}
    assert [len(starts) for starts in found.starts][-2:] == [0, 3]


def test_more_questions_than_are_read_at_once(encoder, monkeypatch):
    whole = table(Windowing(encoder, 16, 2), [*"abcde"], [words(n * 9) for n in range(5)])
    monkeypatch.setattr("keras_transfer.text.windows.QUESTIONS_AT_ONCE", 2)
    parts = table(Windowing(encoder, 16, 2), [*"abcde"], [words(n * 9) for n in range(5)])
    assert parts.record.tolist() == whole.record.tolist()
    np.testing.assert_array_equal(parts.packed.ids, whole.packed.ids)
    assert [row.tolist() for row in parts.starts] == [row.tolist() for row in whole.starts]


def test_a_long_question_keeps_its_start_and_end_and_leaves_half_the_room(encoder):
    found = table(Windowing(encoder, 17, 2, question=50), [words(25) + " ?"], ["k l m"])
    ids = found.packed.one(tf.constant(0, tf.int64), ("token_ids",))["token_ids"].numpy()
    asked = [VOCABULARY[number] for number in ids[1 : found.first[0] - 1]]
    assert len(asked) == 7
    assert asked[0] == "a" and asked[-1] == "?"
    assert len(found.starts[0]) == 3


def test_a_decoder_says_no_answer_at_its_last_token(decoder):
    found = table(Windowing(decoder, 16), ["q", "q"], ["ab", ""])
    ids = found.packed.one(tf.constant(0, tf.int64), ("token_ids",))["token_ids"].numpy()
    assert ids.tolist()[0] == END and ids.tolist()[-1] == END
    assert found.first.tolist() == [3, 3]
    assert found.null.tolist() == [5, 3]


def test_no_question_at_all(encoder):
    found = table(Windowing(encoder, 16), [], [])
    assert len(found) == 0
    assert found.starts == []


@pytest.mark.parametrize("argument", [{"length": 8}, {"overlap": -1}, {"question": 0}])
def test_faulty_sizes_are_refused(encoder, argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        Windowing(encoder, **argument)
