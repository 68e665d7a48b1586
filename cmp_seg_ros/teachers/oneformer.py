"""OneFormer (Jain et al. 2023): semantic masks of ADE20K or COCO, and features of its encoder (Swin)."""

from functools import partial
from pathlib import Path
from typing import Any

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.teachers import pretrained
from cmp_seg_ros.teachers.base import Card, Features, Masks, hub_files

SIDE = 640  # pixels of the shorter side, as in its training
STRIDE = 32  # of the last stage of its encoder
TASK = "the task is semantic"
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
MODEL = "oneformer"


class Teacher(pretrained.Pretrained):
    """Masks at a quarter of the resolution, features at a 32nd.

    Raises:
        UserError: also where the tokenizer's files are not beside the weights.
    """

    model_type = MODEL

    def __init__(self, path: Path, name: str = MODEL) -> None:
        super().__init__(path, name, "OneFormerForUniversalSegmentation")
        self._space = self.label_space = self.space()
        backbone = self.network.config.backbone_config
        self.dimension = backbone.embed_dim * 2 ** (len(backbone.depths) - 1)
        self._task = self._tokens(path)

    def masks(self, rgb: UInt8) -> Masks:
        found = self._run(rgb)
        scores = pretrained.query_scores(found.class_queries_logits, found.masks_queries_logits)
        return pretrained.as_masks(pretrained.grid(scores), (rgb.shape[0], rgb.shape[1]), self._space)

    def features(self, rgb: UInt8) -> Features:
        found = self._run(rgb, output_hidden_states=True).encoder_hidden_states[-1]
        return Features(pretrained.grid(found), (rgb.shape[0], rgb.shape[1]))

    def _run(self, rgb: UInt8, **options: bool) -> Any:
        pixels = self.pixels(rgb, pretrained.fitted(rgb.shape[:2], SIDE, STRIDE))
        return self.network(pixel_values=pixels, task_inputs=self._task, **options)

    def _tokens(self, path: Path) -> Any:
        """(1, 77) the task in words, as tokens; 0 behind the end."""
        from transformers import CLIPTokenizer

        if missing := [name for name in TOKENIZER[:2] if not (path / name).is_file()]:
            raise UserError(f"{path} lacks the tokenizer's {', '.join(missing)}; fetch the teacher again")
        tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
        length = self.network.config.task_seq_len
        found = tokenizer([TASK], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return (found["input_ids"] * found["attention_mask"]).to(self.device)


CARDS = tuple(
    Card(
        name=f"{MODEL}-{data}",
        file=f"{MODEL}-{data}",
        source=f"huggingface.co/shi-labs/oneformer_{data}_swin_large (cmp-seg teachers fetch {MODEL}-{data})",
        licence="MIT",
        load=partial(Teacher, name=f"{MODEL}-{data}"),
        recognises=partial(pretrained.recognises, model_type=MODEL),
        files=hub_files(f"shi-labs/oneformer_{data}_swin_large", *TOKENIZER),
        megabytes=880,
        label_space=data,
        dimension=1536,
    )
    for data in ("ade20k", "coco")
)
