"""Tiny random text backbones of the other families, on disk: SentencePiece tokenizers, and each kind of network once.

`tiny_texts` has BERT, GPT-2, Llama 3 and RoBERTa, and the forms of Hugging Face.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import tiny_texts

# Beside the made reviews: what a tokenizer of many languages has to know.
LANGUAGES = (
    "Café crème is 2.50 in Tórshavn.", "東京は日本の首都です。", "한국 사람", "the family lives here", "zero width",
    "where is it? what is it?", "who lives in Tórshavn?", "naïve façade übermäßig",
)  # fmt: skip
_ENCODER = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32, "max_sequence_length": 64}
_DECODER = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
_GROUPED = {
    "num_layers": 2, "num_query_heads": 2, "num_key_value_heads": 1, "hidden_dim": 16, "intermediate_dim": 32,
}  # fmt: skip


@functools.cache
def sentence_pieces(control: tuple[str, ...] = (), pad: str = "", byte_fallback: bool = False, **ids: Any) -> bytes:
    """A SentencePiece model of a few hundred pieces, trained on the corpus.

    Args:
        control: pieces that no text ever gives, such as `[CLS]`.
        pad: the piece of padding; "" is none.
        byte_fallback: unknown characters become bytes, as with Llama, Mistral and Gemma.
        ids: further arguments of the trainer.
    """
    model = io.BytesIO()
    arguments: dict[str, Any] = {
        "vocab_size": 400 if byte_fallback else 170,
        "model_type": "bpe" if byte_fallback else "unigram",
        "character_coverage": 1.0,
        "hard_vocab_limit": False,
        "byte_fallback": byte_fallback,
        "control_symbols": list(control),
        "minloglevel": 2,
        **ids,
    }
    if pad:
        arguments |= {"pad_piece": pad}
    sentences = iter([*tiny_texts.CORPUS, *LANGUAGES] * 4)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=sentences, model_writer=model, **arguments)
    return model.getvalue()


def _pieces_of(proto: bytes) -> int:
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(proto)
    return int(processor.GetPieceSize())


def _save(folder: Path, network: Any, tokenizer: Any) -> Path:
    network.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))
    return folder


def write_albert(folder: Path) -> Path:
    """An ALBERT: one layer called many times; its pieces are of lower case."""
    import keras_hub

    proto = sentence_pieces(
        ("[CLS]", "[SEP]", "[MASK]"), "<pad>", pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        normalization_rule_name="nmt_nfkc_cf",
    )  # fmt: skip
    size = {**_ENCODER, "embedding_dim": 8}
    network = keras_hub.models.AlbertBackbone(vocabulary_size=_pieces_of(proto), **size)
    return _save(folder, network, keras_hub.models.AlbertTokenizer(proto=proto))


def write_xlm_roberta(folder: Path) -> Path:
    """An XLM-RoBERTa: its ids are those of SentencePiece moved by one."""
    import keras_hub

    proto = sentence_pieces(unk_id=0, bos_id=1, eos_id=2)
    network = keras_hub.models.XLMRobertaBackbone(vocabulary_size=_pieces_of(proto) + 2, **_ENCODER)
    return _save(folder, network, keras_hub.models.XLMRobertaTokenizer(proto=proto))


def write_deberta(folder: Path) -> Path:
    """A DeBERTa-v3: relative positions, no segments."""
    import keras_hub

    proto = sentence_pieces(
        (), "[PAD]", pad_id=0, bos_id=1, eos_id=2, unk_id=3, bos_piece="[CLS]", eos_piece="[SEP]", unk_piece="[UNK]"
    )
    network = keras_hub.models.DebertaV3Backbone(vocabulary_size=_pieces_of(proto) + 1, bucket_size=8, **_ENCODER)
    return _save(folder, network, keras_hub.models.DebertaV3Tokenizer(proto=proto))


def write_f_net(folder: Path) -> Path:
    """An FNet: Fourier transforms over all places, padding among them."""
    import keras_hub

    proto = sentence_pieces(("[CLS]", "[SEP]", "[MASK]"), "<pad>", pad_id=3, unk_id=0, bos_id=-1, eos_id=-1)
    size = {name: value for name, value in _ENCODER.items() if name != "num_heads"}
    network = keras_hub.models.FNetBackbone(vocabulary_size=_pieces_of(proto), **size)
    return _save(folder, network, keras_hub.models.FNetTokenizer(proto=proto))


def write_gemma(folder: Path) -> Path:
    """A Gemma: a decoder of SentencePiece with bytes for unknown characters."""
    import keras_hub

    proto = sentence_pieces(
        (), "<pad>", True, pad_id=0, eos_id=1, bos_id=2, unk_id=3, bos_piece="<bos>", eos_piece="<eos>",
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
    )  # fmt: skip
    network = keras_hub.models.GemmaBackbone(vocabulary_size=_pieces_of(proto), head_dim=8, **_GROUPED)
    return _save(folder, network, keras_hub.models.GemmaTokenizer(proto=proto))


def write_mistral(folder: Path) -> Path:
    """A Mistral: a decoder that sees a window of tokens."""
    import keras_hub

    proto = sentence_pieces((), "", True, unk_id=0, bos_id=1, eos_id=2, normalization_rule_name="identity")
    network = keras_hub.models.MistralBackbone(vocabulary_size=_pieces_of(proto), sliding_window=8, **_GROUPED)
    return _save(folder, network, keras_hub.models.MistralTokenizer(proto=proto))


def write_llama(folder: Path) -> Path:
    """A Llama 2: a decoder of SentencePiece."""
    import keras_hub

    proto = sentence_pieces((), "", True, unk_id=0, bos_id=1, eos_id=2, normalization_rule_name="identity")
    network = keras_hub.models.LlamaBackbone(vocabulary_size=_pieces_of(proto), **_GROUPED)
    return _save(folder, network, keras_hub.models.LlamaTokenizer(proto=proto))


def write_electra(folder: Path) -> Path:
    """An ELECTRA: embeddings narrower than the layers."""
    import keras_hub

    vocabulary = tiny_texts.word_pieces()
    network = keras_hub.models.ElectraBackbone(vocab_size=len(vocabulary), embedding_dim=8, **_ENCODER)
    return _save(folder, network, keras_hub.models.ElectraTokenizer(vocabulary=vocabulary, lowercase=True))


def write_distil_bert(folder: Path) -> Path:
    """A DistilBERT: no segments, no pooler."""
    import keras_hub

    vocabulary = tiny_texts.word_pieces()
    network = keras_hub.models.DistilBertBackbone(vocabulary_size=len(vocabulary), **_ENCODER)
    return _save(folder, network, keras_hub.models.DistilBertTokenizer(vocabulary=vocabulary, lowercase=True))


def _pairs(*special: str) -> tuple[dict[str, int], list[str]]:
    """Byte pairs with special tokens before all others."""
    found, merges = tiny_texts.byte_pairs()
    tokens = [*special, *(token for token in found if token not in ("<|endoftext|>", *special))]
    return {token: number for number, token in enumerate(tokens)}, merges


def write_bloom(folder: Path) -> Path:
    """A Bloom: a decoder without positions, but biases of attention."""
    import keras_hub

    vocabulary, merges = _pairs("<unk>", "<s>", "</s>", "<pad>")
    network = keras_hub.models.BloomBackbone(vocabulary_size=len(vocabulary), **_DECODER)
    return _save(folder, network, keras_hub.models.BloomTokenizer(vocabulary=vocabulary, merges=merges))


def write_opt(folder: Path) -> Path:
    """An OPT: one token starts and ends a text."""
    import keras_hub

    vocabulary, merges = _pairs("<s>", "<pad>", "</s>", "<unk>")
    network = keras_hub.models.OPTBackbone(vocabulary_size=len(vocabulary), max_sequence_length=64, **_DECODER)
    return _save(folder, network, keras_hub.models.OPTTokenizer(vocabulary=vocabulary, merges=merges))


def write_gpt_neo_x(folder: Path) -> Path:
    """A GPT-NeoX: rotary positions."""
    import keras_hub

    vocabulary, merges = _pairs("<|endoftext|>")
    network = keras_hub.models.GPTNeoXBackbone(vocabulary_size=len(vocabulary), max_sequence_length=64, **_DECODER)
    return _save(folder, network, keras_hub.models.GPTNeoXTokenizer(vocabulary=vocabulary, merges=merges))


def write_falcon(folder: Path) -> Path:
    """A Falcon: one key and value for all heads."""
    import keras_hub

    vocabulary, merges = _pairs("<|endoftext|>")
    size = {"num_layers": 2, "num_attention_heads": 2, "hidden_dim": 16, "intermediate_dim": 64}
    network = keras_hub.models.FalconBackbone(vocabulary_size=len(vocabulary), **size)
    return _save(folder, network, keras_hub.models.FalconTokenizer(vocabulary=vocabulary, merges=merges))


def write_qwen(folder: Path) -> Path:
    """A Qwen: no start token."""
    import keras_hub

    vocabulary, merges = _pairs("<|endoftext|>")
    network = keras_hub.models.QwenBackbone(vocabulary_size=len(vocabulary), **_GROUPED)
    return _save(folder, network, keras_hub.models.QwenTokenizer(vocabulary=vocabulary, merges=merges))


def write_qwen3(folder: Path) -> Path:
    """A Qwen 3: keys and queries normed."""
    import keras_hub

    vocabulary, merges = _pairs("<|endoftext|>", "<|im_end|>")
    network = keras_hub.models.Qwen3Backbone(vocabulary_size=len(vocabulary), head_dim=8, **_GROUPED)
    return _save(folder, network, keras_hub.models.Qwen3Tokenizer(vocabulary=vocabulary, merges=merges))


def write_mixtral(folder: Path) -> Path:
    """A Mixtral: a mixture of experts."""
    import keras_hub

    proto = sentence_pieces((), "", True, unk_id=0, bos_id=1, eos_id=2, normalization_rule_name="identity")
    network = keras_hub.models.MixtralBackbone(vocabulary_size=_pieces_of(proto), num_experts=2, top_k=1, **_GROUPED)
    return _save(folder, network, keras_hub.models.MixtralTokenizer(proto=proto))


def write_phi3(folder: Path) -> Path:
    """A Phi-3: SentencePiece with an end token of another name."""
    import keras_hub

    proto = sentence_pieces(
        (), "", True, unk_id=0, bos_id=1, eos_id=2, eos_piece="<|endoftext|>", normalization_rule_name="identity"
    )
    network = keras_hub.models.Phi3Backbone(vocabulary_size=_pieces_of(proto), **_GROUPED)
    return _save(folder, network, keras_hub.models.Phi3Tokenizer(proto=proto))


WRITERS: Mapping[str, Callable[[Path], Path]] = {
    "bert": tiny_texts.write_bert,
    "distil_bert": write_distil_bert,
    "electra": write_electra,
    "roberta": tiny_texts.write_roberta,
    "albert": write_albert,
    "xlm_roberta": write_xlm_roberta,
    "deberta_v3": write_deberta,
    "f_net": write_f_net,
    "gpt2": tiny_texts.write_gpt2,
    "llama3": tiny_texts.write_llama3,
    "bloom": write_bloom,
    "opt": write_opt,
    "gpt_neo_x": write_gpt_neo_x,
    "falcon": write_falcon,
    "qwen": write_qwen,
    "qwen3": write_qwen3,
    "llama": write_llama,
    "mistral": write_mistral,
    "mixtral": write_mixtral,
    "phi3": write_phi3,
    "gemma": write_gemma,
}
"""By the family's name in keras_hub's presets."""
SENTENCE_PIECES = {"albert", "xlm_roberta", "deberta_v3", "f_net", "llama", "mistral", "mixtral", "phi3", "gemma"}
DECODERS = {
    *("gpt2", "llama3", "bloom", "opt", "gpt_neo_x", "falcon", "qwen", "qwen3", "llama", "mistral", "mixtral"),
    *("phi3", "gemma"),
}
