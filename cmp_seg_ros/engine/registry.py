"""Finds runtimes: each file in `runtimes/` lists its own as RUNTIMES, best first."""

from importlib import import_module
from pkgutil import iter_modules

from cmp_seg_ros.engine import runtimes
from cmp_seg_ros.engine.base import Runtime
from cmp_seg_ros.errors import UserError

DEFAULT = "cpu"  # for engine `auto`: the fastest on every machine that was measured


def files() -> list[str]:
    """Names of the files; the names of engines begin with them."""
    return [info.name for info in iter_modules(runtimes.__path__)]


def find_all(engine: str) -> tuple[list[Runtime], str]:
    """The runtimes that match an engine's name, best first, and the precision at the end of the name, or "".

    `onnxruntime-fp32` matches several runtimes, `onnxruntime-cpu-fp32` one. Raises UserError for an unknown name,
    ImportError if the file needs a package that is not installed.
    """
    file, _, rest = engine.partition("-")
    file = DEFAULT if file == "auto" else file
    if file not in files():
        raise UserError(f"no engine '{engine}'; known: auto, {', '.join(files())}")
    known: tuple[Runtime, ...] = import_module(f"{runtimes.__name__}.{file}").RUNTIMES
    for runtime in known:
        if f"{file}-{rest}-".startswith(f"{runtime.name}-"):
            return [runtime], f"{file}-{rest}"[len(runtime.name) :].strip("-")
    return list(known), rest


def find(engine: str) -> tuple[Runtime, str]:
    """As `find_all`, but only the first runtime that can run here."""
    known, precision = find_all(engine)
    return next((runtime for runtime in known if not runtime.missing()), known[0]), precision
