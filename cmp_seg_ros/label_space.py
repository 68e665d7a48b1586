"""Label spaces: ordered classes with ids and colours, and mappings from other label spaces."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cmp_seg_ros import configuration, resources
from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.scan import UNLABELLED, Float32, UInt8

FOLDER = "config/label_spaces"
IGNORE = "ignore"


class LabelClass(BaseModel):
    """One class: its name, its id in messages (uint8) and its colour (r, g, b)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    id: int = Field(ge=0, lt=UNLABELLED)
    color: tuple[int, int, int]


class LabelSpace(BaseModel):
    """Ordered classes. `mappings[source][class of source]` is a class of this space, or "ignore".

    A mapping named `source:variant` lists what is otherwise in a variant: `structural4` maps `structural6` strictly
    (flush is non-structural) or in the variant `primary` (flush is ignored).
    """

    model_config = ConfigDict(extra="forbid", ignored_types=(cached_property,))

    name: str
    description: str = ""
    classes: list[LabelClass] = Field(min_length=1, max_length=UNLABELLED)
    mappings: dict[str, dict[str, str]] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "LabelSpace":
        for what in ("name", "id"):
            values = [getattr(c, what) for c in self.classes]
            if len(set(values)) != len(values):
                raise ValueError(f"two classes share the same {what}")
        for source, mapping in self.mappings.items():
            unknown = set(mapping.values()) - set(self.names) - {IGNORE}
            if unknown:
                raise ValueError(f"mapping from {source} names unknown classes {sorted(unknown)}")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> "LabelSpace":
        """Read a label space by its name in config/label_spaces/, or from a YAML file. Raises UserError."""
        return configuration.load(cls, FOLDER, "label space", name_or_path)

    @classmethod
    def from_yaml(cls, text: str, what: str) -> "LabelSpace":
        """The space of the YAML that `to_yaml` makes; `what` names it in errors. Raises UserError."""
        try:
            return cls.model_validate(yaml.safe_load(text))
        except ValidationError as error:
            raise UserError(f"label space {what} is not valid: {describe_invalid(error)}") from error
        except yaml.YAMLError as error:
            raise UserError(f"label space {what} is not YAML: {' '.join(str(error).split())}") from error

    @classmethod
    def numbered(cls, count: int) -> "LabelSpace":
        """Classes named by their number, for a checkpoint without class names."""
        hues = [(int(37 * i) % 256, int(91 * i + 60) % 256, int(151 * i + 120) % 256) for i in range(count)]
        return cls(name="numbered", classes=[LabelClass(name=str(i), id=i, color=hues[i]) for i in range(count)])

    def recoloured(self) -> "LabelSpace":
        """The same classes with the colours of the space of this name in config/label_spaces/, if there is one."""
        if self.name not in resources.names(FOLDER, ".yaml"):
            return self
        colours = {c.name: c.color for c in LabelSpace.load(self.name).classes}
        classes = [LabelClass(name=c.name, id=c.id, color=colours.get(c.name, c.color)) for c in self.classes]
        return self.model_validate(self.model_dump() | {"classes": classes})

    def to_yaml(self) -> str:
        """The space as YAML: what `load` reads and the topic `~/label_space` publishes."""
        data: dict[str, Any] = self.model_dump(mode="json")
        return yaml.safe_dump(data, sort_keys=False, default_flow_style=None)

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]

    @cached_property
    def ids(self) -> UInt8:
        """(C,) id of each class, in order."""
        return np.array([c.id for c in self.classes], dtype=np.uint8)

    @cached_property
    def palette(self) -> UInt8:
        """(256, 3) colour of each id; black where there is no class."""
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[self.ids] = [c.color for c in self.classes]
        return palette

    @cached_property
    def index_of_id(self) -> UInt8:
        """(256,) position of each id in `classes`; UNLABELLED where there is no class."""
        index = np.full(256, UNLABELLED, dtype=np.uint8)
        index[self.ids] = np.arange(len(self.classes))
        return index

    def _mapping(self, source: "LabelSpace", variant: str) -> dict[str, str]:
        key = f"{source.name}:{variant}" if variant else source.name
        mapping = self._listed(source.name, variant)
        if mapping is None and source.name == self.name and not variant:
            mapping = {name: name for name in source.names if name in self.names}
        if mapping is None or (variant and key not in self.mappings):
            mapping = self._two_steps(source.name, variant)
        elif variant:
            mapping = (self._two_steps(source.name, "") or {}) | mapping
        if mapping is None:
            known = ", ".join(self.mappings) or "none"
            raise UserError(f"label space '{self.name}' has no mapping from '{key}' (it has: {known})")
        missing = [name for name in source.names if name not in mapping]
        if missing:
            raise UserError(f"mapping '{key}' of '{self.name}' lacks {', '.join(missing)}; map or ignore them")
        return mapping

    def _listed(self, source: str, variant: str) -> dict[str, str] | None:
        """The mapping that this space lists, with the changes of the variant, if it lists such; None without one."""
        listed = [self.mappings[key] for key in (source, f"{source}:{variant}") if key in self.mappings]
        return {name: to for part in listed for name, to in part.items()} if listed else None

    def _two_steps(self, source: str, variant: str) -> dict[str, str] | None:
        """A mapping through an intermediate space of config/ that this space maps from; None without one.

        At least one of the two steps has the variant.
        """
        for between in resources.names(FOLDER, ".yaml"):
            if between in (self.name, source) or (second := self._listed(between, variant)) is None:
                continue
            middle = LabelSpace.load(between)
            varied = not variant or f"{between}:{variant}" in self.mappings or f"{source}:{variant}" in middle.mappings
            if varied and (first := middle._listed(source, variant)) is not None:
                second = second | {IGNORE: IGNORE}
                return {name: second[to] for name, to in first.items() if to in second}
        return None

    def id_map(self, source: "LabelSpace", variant: str = "") -> UInt8:
        """(256,) table from ids of `source` to ids of this space; UNLABELLED for ignored classes and unknown ids."""
        mapping = self._mapping(source, variant)
        table = np.full(256, UNLABELLED, dtype=np.uint8)
        for c in source.classes:
            if mapping[c.name] != IGNORE:
                table[c.id] = self.classes[self.names.index(mapping[c.name])].id
        return table

    def merge_matrix(self, source: "LabelSpace", variant: str = "") -> Float32:
        """(C_source, C) matrix of 0 and 1: `probabilities @ matrix` sums the probabilities of merged classes."""
        mapping = self._mapping(source, variant)
        matrix = np.zeros((len(source.classes), len(self.classes)), dtype=np.float32)
        for row, c in enumerate(source.classes):
            if mapping[c.name] != IGNORE:
                matrix[row, self.names.index(mapping[c.name])] = 1.0
        return matrix
