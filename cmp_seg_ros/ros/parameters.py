"""Parameters of a node as a table: name, default, description, and what is allowed."""

import argparse
import difflib
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RclParameter

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.ros import qos

KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


@dataclass(frozen=True)
class Parameter:
    """One parameter. `allowed`: (from, to) for numbers, the known values for strings; None: anything of its type."""

    name: str
    default: Any
    description: str
    allowed: tuple[Any, ...] | None = None
    read_only: bool = True

    def __str__(self) -> str:
        joint = " | " if isinstance(self.default, str) else " to "
        allowed = f" ({joint.join(map(str, self.allowed))})" if self.allowed else ""
        return f"{self.name} = {self.default!r}: {self.description}{allowed}"

    @property
    def descriptor(self) -> ParameterDescriptor:
        described = ParameterDescriptor(description=self.description, read_only=self.read_only)
        if self.allowed is None:
            return described
        if isinstance(self.default, str):
            described.additional_constraints = f"one of: {', '.join(self.allowed)}"
        elif isinstance(self.default, int):
            described.integer_range = [IntegerRange(from_value=self.allowed[0], to_value=self.allowed[1])]
        else:
            described.floating_point_range = [FloatingPointRange(from_value=self.allowed[0], to_value=self.allowed[1])]
        return described

    def problem(self, value: Any) -> str:
        """What is wrong with a value; empty where nothing is."""
        if isinstance(self.default, str) and self.allowed is not None and value not in self.allowed:
            return f"parameter {self.name} is '{value}'; it must be one of: {', '.join(self.allowed)}"
        return ""


class Parameters:
    """The declared parameters of a node; `self[name]` is the present value.

    Raises:
        UserError: a parameter was given with a wrong type or value.
    """

    def __init__(self, node: Node, table: list[Parameter]) -> None:
        self._node = node
        self._table = {parameter.name: parameter for parameter in table}
        for parameter in table:
            value = self._declare(parameter)
            if problem := parameter.problem(value):
                raise UserError(problem)
        self._warn_of_unknown()
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _declare(self, parameter: Parameter) -> Any:
        # An integer on the command line is right where a float is asked for.
        override = self._node._parameter_overrides.get(parameter.name)
        if override is not None and isinstance(parameter.default, float) and isinstance(override.value, int):
            self._node._parameter_overrides[parameter.name] = RclParameter(parameter.name, value=float(override.value))
        try:
            return self._node.declare_parameter(parameter.name, parameter.default, parameter.descriptor).value
        except ParameterException as error:
            kind = KINDS[type(parameter.default)]
            within = f" from {parameter.allowed[0]} to {parameter.allowed[1]}" if parameter.allowed else ""
            given = override.value if override is not None else None
            raise UserError(f"parameter {parameter.name} is {given!r}; it must be {kind}{within}") from error

    def _warn_of_unknown(self) -> None:
        """Of what is given to all nodes, in a file, only a part is for this one; all else is likely mistyped."""
        shared = shared_names(sys.argv)
        for name in self._node._parameter_overrides:
            if self._node.has_parameter(name) or name in shared or name.startswith(qos.OVERRIDES):
                continue
            near = difflib.get_close_matches(name, self._table, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"known: {', '.join(self._table)}"
            self._node.get_logger().warning(f"there is no parameter {name}, and it is ignored; {remedy}")

    def _on_set(self, changes: list[Any]) -> SetParametersResult:
        known = [self._table[change.name].problem(change.value) for change in changes if change.name in self._table]
        problem = next(filter(None, known), "")
        return SetParametersResult(successful=not problem, reason=problem)


def command_line(name: str, description: str, table: list[Parameter]) -> argparse.ArgumentParser:
    """What is on the command line beside ROS arguments: nothing so far, and -h, which lists the parameters."""
    epilog = "ROS parameters (-p name:=value after --ros-args):\n" + "\n".join(f"  {parameter}" for parameter in table)
    return argparse.ArgumentParser(
        name, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def shared_names(arguments: list[str]) -> set[str]:
    """Parameters that files on a command line (--params-file) give to all nodes, under a key such as `/**`."""
    files = [Path(after) for before, after in itertools.pairwise(arguments) if before == "--params-file"]
    names = set()
    for path in (path for file in files for path in _paths(yaml.safe_load(file.read_text()))):
        at = path.index("ros__parameters") if "ros__parameters" in path else 0
        if at and path[at - 1].rpartition("/")[2] in ("*", "**"):
            names.add(".".join(path[at + 1 :]))  # parameters may be in nested groups, such as `camera.gain`
    return names


def _paths(tree: Any) -> Iterator[list[str]]:
    """The keys on the way to each value that is no dict."""
    if not isinstance(tree, dict):
        yield []
        return
    for key, below in tree.items():
        yield from ([str(key), *rest] for rest in _paths(below))
