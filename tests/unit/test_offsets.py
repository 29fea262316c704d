"""Tests of `keras_transfer.text.offsets`: every token's characters, in every script."""

from __future__ import annotations

import functools
import unicodedata

import pytest
import tensorflow as tf

from keras_transfer.text import offsets
from keras_transfer.text.byte_pairs import byte_characters
from keras_transfer.text.tokenizing import Layout, Tokenizer, TokenizerSpec

TEXTS = {
    "plain": "The capital is Paris.",
    "accent": "Café naïve Tórshavn",
    "combining": "Cafe\u0301 re\u0301sume\u0301 naive",
    "cjk": "東京は日本の首都です。",
    "hangul": "한국의 수도는 서울",
    "emoji": "a 😀 b 👨\u200d👩\u200d👧 c",
    "windows": "first line\r\nsecond\r\n\r\nthird",
    "zero width": "zero\u200bwidth soft\u00adhyphen",
    "mark": "\ufeffmark first",
    "right to left": "العاصمة هي القاهرة",
    "capitals that grow": "İstanbul Straße",
    "spaces": "  two  spaces\tand\n ",
    "control": "nul\x00 bell\x07",
    "empty": "",
}


@functools.cache
def byte_tokenizer() -> Tokenizer:
    """Every byte is a token, and so tokens end inside characters."""
    spec = TokenizerSpec("byte_pairs", Layout((256,), (256,), (), 256), (*byte_characters(), "<|endoftext|>"))
    return Tokenizer(spec)


@functools.cache
def word_tokenizer() -> Tokenizer:
    """WordPiece over letters, so that pieces are short."""
    text = unicodedata.normalize("NFD", "".join(TEXTS.values()).lower())
    letters = sorted({letter for letter in text if letter.isprintable() and not letter.isspace()})
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *(f"##{letter}" for letter in letters))
    return Tokenizer(TokenizerSpec("wordpiece", Layout((2,), (3,), (3,), 0), vocabulary, lowercase=True, unknown=1))


@functools.cache
def graph_of(tokenizer: Tokenizer):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def graph(texts: tf.Tensor):
        _, starts, ends = tokenizer.graph_encode_with_offsets(texts)
        return offsets.graph_characters(texts, starts, ends)

    return graph


def characters(tokenizer: Tokenizer, texts: list[str]) -> list[list[tuple[int, int]]]:
    starts, ends = graph_of(tokenizer)(tf.constant(texts, tf.string, shape=[len(texts)]))
    return [list(zip(first, last, strict=True)) for first, last in zip(starts.to_list(), ends.to_list(), strict=True)]


@pytest.mark.parametrize("name", TEXTS)
def test_a_token_of_one_byte_stands_at_its_character(name):
    text = TEXTS[name].replace("\x00", "")
    found = characters(byte_tokenizer(), ["other é text", text])[1]
    space = " \t\r\n"
    wanted = []
    for place, character in enumerate(text):
        found_at = (place, place + 1)
        if character in space:
            found_at = (len(text) - len(text[place:].lstrip(space)), len(text[:place].rstrip(space)))
        wanted += [found_at] * len(character.encode())
    assert found == wanted


@pytest.mark.parametrize("name", TEXTS)
def test_pieces_of_words_cover_every_letter_in_order(name):
    text = TEXTS[name]
    found = characters(word_tokenizer(), [text])[0]
    assert all(0 <= a < b <= len(text) for a, b in found)
    assert found == sorted(found)
    covered = {place for a, b in found for place in range(a, b)}
    assert [c for place, c in enumerate(text) if place not in covered and c.isalnum()] == []


def test_the_whole_word_is_cut_out_again():
    vocabulary = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "cafe", "naive", "line", "東", "paris", "end")
    tokenizer = Tokenizer(
        TokenizerSpec("wordpiece", Layout((2,), (3,), (3,), 0), vocabulary, lowercase=True, unknown=1)
    )
    text = "Cafe\u0301\r\nNaïve 東\u200b Paris😀 end"
    words = [text[a:b] for a, b in characters(tokenizer, [text])[0]]
    assert words[:2] == ["Cafe\u0301", "Naïve"]
    assert words[2][0] == "東" and words[-1] == "end"
    assert "Paris" in words[3]


def test_the_space_before_a_word_is_left_out():
    letters = byte_characters()
    space = letters[32]
    merges = (f"{space} a", f"{space}a b")
    vocabulary = (*letters, f"{space}a", f"{space}ab")
    tokenizer = Tokenizer(TokenizerSpec("byte_pairs", Layout((0,), (0,), (), 0), vocabulary, merges))
    text = "é ab"
    assert [text[a:b] for a, b in characters(tokenizer, [text])[0]] == ["é", "é", "ab"]


def test_no_text_at_all():
    assert characters(byte_tokenizer(), []) == []
    assert characters(byte_tokenizer(), ["", ""]) == [[], []]


def test_slices_count_characters():
    texts = tf.constant(["a😀b\r\nc", "東京", "x"])
    found = offsets.graph_slices(texts, tf.constant([1, 1, -1]), tf.constant([3, 2, -1]))
    assert [value.decode() for value in found.numpy()] == ["😀b", "京", ""]


def test_bytes_that_are_no_utf8_are_replaced_as_the_tokenizer_reads_them():
    repaired = offsets.repaired(tf.constant([b"a\xffb c"]))
    _, starts, ends = byte_tokenizer().graph_encode_with_offsets(tf.constant([b"a\xffb c"]))
    first, last = offsets.graph_characters(repaired, starts, ends)
    text = repaired.numpy()[0].decode()
    assert text == "a\ufffdb c"
    assert text[first[0, -1].numpy() : last[0, -1].numpy()] == "c"


def test_half_of_a_surrogate_pair_is_replaced_in_place():
    assert offsets.encodable("a\ud83db") == "a\ufffdb"
    assert offsets.encodable("a😀b") == "a😀b"
