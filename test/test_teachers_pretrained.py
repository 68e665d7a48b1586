"""Teachers of the package transformers, with small random weights: this proves shapes and plumbing, not quality."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_teachers import check_interface, scenery

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.teachers import pretrained
from cmp_seg_ros.teachers.base import cards, open_teacher
from cmp_seg_ros.teachers.eomt import corners

transformers = pytest.importorskip("transformers")


def dinov2(folder: Path) -> None:
    config = transformers.Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=70)
    transformers.Dinov2Model(config).save_pretrained(folder)


def segformer(folder: Path) -> None:
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
        num_labels=150,
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)


def oneformer(folder: Path) -> None:
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.OneFormerConfig(
        backbone_config=backbone, num_queries=10, conv_dim=32, mask_dim=32, hidden_dim=32, encoder_layers=1,
        decoder_layers=3, encoder_feedforward_dim=16, dim_feedforward=16, num_attention_heads=2, num_labels=133,
        text_encoder_width=8, text_encoder_num_layers=1, text_encoder_vocab_size=60, task_seq_len=16,
    )  # fmt: skip
    transformers.OneFormerForUniversalSegmentation(config).save_pretrained(folder)
    letters = [letter + end for end in ("", "</w>") for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


def eomt(folder: Path) -> None:
    config = transformers.EomtConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=64, patch_size=16, num_queries=7,
        num_blocks=1, num_labels=150, mlp_ratio=1,
    )  # fmt: skip
    transformers.EomtForUniversalSegmentation(config).save_pretrained(folder)


MAKERS: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (dinov2, segformer, oneformer, eomt)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the weights of a teacher, once."""
    import torch

    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            made[name] = tmp_path_factory.mktemp(name)
            MAKERS[name](made[name])
        return made[name]

    return folder


@pytest.fixture(autouse=True)
def _small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from cmp_seg_ros.teachers import dinov2, oneformer, segformer

    for module in (dinov2, oneformer, segformer):
        monkeypatch.setattr(module.Teacher, "side", 96)


@pytest.mark.parametrize("name", list(MAKERS))
def test_a_teacher_holds_to_the_interface(name: str, folders: Callable[[str], Path]) -> None:
    teacher = open_teacher(folders(name))
    masks, features = check_interface(teacher, scenery(100, 180))
    assert (masks is None) == (name == "dinov2") and features is not None
    cells = {"dinov2": (7, 12), "segformer": (3, 5), "oneformer": (3, 5), "eomt": (4, 7)}[name]
    assert features.values.shape[:2] == cells
    check_interface(teacher, scenery(120, 70))


def test_features_of_dinov2_are_those_before_the_final_norm(folders: Callable[[str], Path]) -> None:
    import torch

    teacher: Any = open_teacher(folders("dinov2"))
    rgb = scenery(98, 140)
    found = teacher.network(teacher.pixels(rgb))
    normed = teacher.network.layernorm(torch.from_numpy(teacher.features(rgb).values))
    expected = found.last_hidden_state[0, 1:].reshape(normed.shape)
    torch.testing.assert_close(normed, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["segformer", "eomt"])
def test_masks_are_where_the_network_puts_them(name: str, folders: Callable[[str], Path]) -> None:
    """The label of a pixel is the likeliest class of the probabilities sampled there."""
    teacher = open_teacher(folders(name))
    rgb = scenery(96, 160)
    masks = teacher.masks(rgb)
    v, u = np.mgrid[0:96, 0:160].astype(np.float32)
    sampled = masks.at(np.stack([u.ravel(), v.ravel()], axis=1))
    assert teacher.label_space is not None
    label = teacher.label_space.ids[sampled.argmax(axis=1)].reshape(96, 160)
    assert (label == masks.label).mean() > 0.9


def test_squares_cover_an_image_and_a_square_image_is_seen_once() -> None:
    assert corners(64, 64, 64, 16) == [(0, 0)]
    assert corners(64, 112, 64, 16) == [(0, 0), (0, 48)]
    assert [left for _, left in corners(64, 192, 64, 16)] == [0, 64, 128]
    assert pretrained.fitted((480, 640), 518, 14) == (518, 686)


def test_wrong_or_damaged_weights_are_named(folders: Callable[[str], Path], tmp_path: Path) -> None:
    good = folders("segformer")

    def copy(name: str) -> Path:
        (tmp_path / name).mkdir()
        for file in ("config.json", "model.safetensors"):
            (tmp_path / name / file).write_bytes((good / file).read_bytes())
        return tmp_path / name

    half = copy("half")
    content = (good / "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half cannot be read: .*fetch the teacher again"):
        open_teacher(half)
    other = copy("other")
    (other / "model.safetensors").write_bytes((folders("eomt") / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"lack \d+ tensors, such as .*of another network"):
        open_teacher(other)
    few = copy("few")
    config = transformers.SegformerConfig(num_labels=19, hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(few)
    with pytest.raises(UserError, match="are for 19 classes; known: 150"):
        open_teacher(few)
    bare = tmp_path / "bare"
    oneformer(bare)
    (bare / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"lacks the tokenizer's merges.txt"):
        open_teacher(bare)


def test_a_folder_of_another_teacher_is_refused(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(tmp_path))
    (tmp_path / "dinov2-s").symlink_to(folders("segformer"))
    with pytest.raises(UserError, match="holds weights of segformer, not of dinov2"):
        open_teacher("dinov2-s")
    assert {"mosaic", "dinov2-l", "oneformer-ade20k", "eomt-ade20k", "segformer-b5"} <= cards().keys()
