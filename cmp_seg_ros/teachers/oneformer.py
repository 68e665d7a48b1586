"""OneFormer (Jain et al. 2023): semantic masks of ADE20K or COCO, and features of its encoder (Swin)."""

from pathlib import Path
from typing import Any

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.teachers import pretrained

TASK = "the task is semantic"
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")


class Teacher(pretrained.Pretrained):
    """Masks at a quarter of the resolution, features at a 32nd.

    Raises:
        UserError: also where the tokenizer's files are not beside the weights.
    """

    model_type, architecture = "oneformer", "OneFormerForUniversalSegmentation"
    side, stride = 640, 32

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name)
        self.label_space = self.space()
        backbone = self.network.config.backbone_config
        self.dimension = backbone.embed_dim * 2 ** (len(backbone.depths) - 1)
        self._task = self._tokens(path)

    def _scores(self, rgb: UInt8) -> Float32:
        return pretrained.grid(pretrained.query_scores(self._run(rgb)))

    def _features(self, rgb: UInt8) -> Float32:
        return pretrained.grid(self._run(rgb, output_hidden_states=True).encoder_hidden_states[-1])

    def _run(self, rgb: UInt8, **options: bool) -> Any:
        return self.network(pixel_values=self.pixels(rgb), task_inputs=self._task, **options)

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
    pretrained.card(
        Teacher, f"oneformer-{data}", f"shi-labs/oneformer_{data}_swin_large", "MIT", 880, data, 1536, TOKENIZER
    )
    for data in ("ade20k", "coco")
)
