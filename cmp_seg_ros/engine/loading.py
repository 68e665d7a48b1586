"""Loads engines: built or cached, checked, in the fastest precision whose labels agree with float32."""

import logging
from importlib.util import find_spec

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.digest import digest
from cmp_seg_ros.engine import cache, registry
from cmp_seg_ros.engine.base import Engine, Runtime, Stale
from cmp_seg_ros.engine.parity import Agreement, Exact, agreement
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.waffleiron.model import WaffleIron

logger = logging.getLogger(__name__)


def load_engine(bundle: Bundle, name: str = "auto") -> Engine:
    """The engine `name`, in the precision at the end of the name, or else the fastest that agrees with float32.

    Raises UserError.
    """
    runtime, precision = registry.find(name)
    return Loader(bundle, runtime).load(precision)


def exact_engine(bundle: Bundle, pytorch: bool = False) -> Exact:
    """The engine that others are checked against: PyTorch if requested and installed, else our own in float32."""
    name = "reference" if pytorch and find_spec("torch") else "cpu"
    network = network_of(bundle)
    return Exact(f"{name}-fp32", network, lambda: registry.find(name)[0].open(network, b"", "fp32"))


def network_of(bundle: Bundle) -> WaffleIron:
    """The network of a bundle. Raises UserError for a kind that no engine runs."""
    points = bundle.points
    return WaffleIron(
        name=bundle.description.name,
        hash=bundle.hash,
        weights=bundle.weights_path,
        config=points.network,
        preprocess=points.preprocess,
        raw_intensity=points.intensity.mode == "raw",
        output="logits" if bundle.description.kind == "segmentation" else "point_features",
    )


class Loader:
    """Loads engines of one bundle with one runtime. Raises UserError if that runtime cannot run here."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        if reason := runtime.reason():
            raise UserError(f"engine '{runtime.name}' cannot run here: {reason}")
        self.bundle, self.runtime = bundle, runtime
        self.network = network_of(bundle)
        self.precisions = runtime.precisions()

    def load(self, precision: str = "") -> Engine:
        """The engine in the given precision, agreeing with float32 or not, or else in the fastest that agrees.

        Raises:
            UserError: this machine lacks the precision; none is given, and not even float32 agrees.
        """
        exact = exact_engine(self.bundle)  # without PyTorch, which takes seconds to import
        if precision:
            return self._named(precision, exact)
        for candidate in self.precisions:
            known = self.known(candidate)
            if known is not None and not self.accepts(known, candidate):
                continue
            engine = self.engine(candidate)
            known = known or self._check_at_start(engine, exact)
            if known is None or self.accepts(known, candidate):
                return engine
        raise self.no_precision_left()

    def engine(self, precision: str) -> Engine:
        """Ready to run, unchecked. Raises UserError."""
        try:
            return self.runtime.open(self.network, self.keep(precision, must_keep=False).content, precision)
        except Stale as error:
            logger.warning("%s", error)
            built = self.keep(precision, fresh=True, must_keep=False)
            return self.runtime.open(self.network, built.content, precision)

    def keep(self, precision: str, fresh: bool = False, must_keep: bool = True) -> cache.Kept:
        """The cached engine of the bundle, built if it is not in the cache.

        Raises:
            UserError: this machine lacks the precision; the engine must be kept and cannot be.
        """
        if precision not in self.precisions:
            known = ", ".join(self.precisions)
            raise UserError(
                f"engine '{self.runtime.name}' has no precision '{precision}' on this machine; it has {known}"
            )
        if must_keep and self.runtime.compiled is not None:
            cache.require_writable(self.runtime.compiled)
        if not self.runtime.builds:
            return cache.Kept(b"", False)
        return cache.obtain(self.key(precision), lambda: self.runtime.build(self.network, precision), fresh, must_keep)

    def key(self, precision: str) -> cache.Key:
        sources = digest([*self.runtime.sources, *self.network.sources])
        version, hardware = self.runtime.version(), self.runtime.hardware()
        return cache.Key(self.bundle.hash, self.runtime.name, version, sources, precision, hardware)

    def known(self, precision: str) -> Agreement | None:
        """Result of the last check of the engine; None if it was not checked with these samples."""
        return Agreement.recall(self.key(precision), self.network)

    def check(self, engine: Engine, exact: Exact) -> Agreement:
        """Check the engine on the samples, and store the result."""
        found = agreement(engine, exact)
        found.remember(self.key(engine.precision), self.network)
        logger.info("%s-%s: %s", engine.name, engine.precision, self.text(found))
        return found

    def accepts(self, found: Agreement, precision: str) -> bool:
        """Whether an engine with this result is used; logs a warning if not."""
        accepted = self._passes(found, precision)
        if not accepted:
            logger.warning("%s-%s is not used: %s", self.runtime.name, precision, self.text(found))
        return accepted

    def text(self, found: Agreement) -> str:
        """The result as a sentence."""
        return found.text(self.bundle.trained)

    def no_precision_left(self) -> UserError:
        other = "reference" if self.runtime.name == "cpu" else "cpu"
        return UserError(
            f"engine '{self.runtime.name}' differs from the reference in every precision; use engine '{other}', and "
            "report this"
        )

    def _named(self, precision: str, exact: Exact) -> Engine:
        """The engine in a precision chosen by the user; checked if the bundle is trained, but used in any case."""
        engine = self.engine(precision)
        known = self.known(precision)
        if known is None and self.bundle.trained:
            known = self._check_at_start(engine, exact)
        if known is not None and not self._passes(known, precision):
            logger.warning("%s-%s is used as asked, but %s", self.runtime.name, precision, self.text(known))
        return engine

    def _check_at_start(self, engine: Engine, exact: Exact) -> Agreement | None:
        """Check the engine, unless it is the one that others are checked against."""
        return None if self.runtime.exact and engine.precision == "fp32" else self.check(engine, exact)

    def _passes(self, found: Agreement, precision: str) -> bool:
        """Whether the check was passed; float32 also passes if the bundle sees none of the samples."""
        return found.passes(self.bundle.trained) or (precision == "fp32" and not found.scans)
