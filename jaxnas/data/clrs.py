"""Runs of classical algorithms on random inputs, step by step: the data of CLRS-30.

Velickovic et al., The CLRS Algorithmic Reasoning Benchmark, ICML 2022, arXiv:2205.15659. The
package dm-clrs draws inputs and runs the algorithms; here its examples become arrays of one shape,
changed as Ibarz et al., LoG 2022, arXiv:2209.11142, train on them (`clrs_probes` says how).
"""

import importlib
import importlib.util
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxnas.data.clrs_probes import POINTERS, Spec, shape, spec, staged
from jaxnas.data.dataset import DataError

RELEASE = "2.0.3"
REMEDY = (
    f"Install it alone: pip install --no-deps dm-clrs=={RELEASE} absl-py attrs; what else it asks "
    "for (TensorFlow) is not needed."
)
LENGTHS = (4, 7, 11, 13, 16)
MATCHERS = ("naive_string_matcher", "kmp_matcher")
LONGEST_NEEDLE = 8
EDGES = tuple(round(0.1 * i, 1) for i in range(1, 10))
# Runs of these are long on dense graphs, so Ibarz et al. draw half as many edges.
SPARSE = ("articulation_points", "bridges", "mst_kruskal")
TEST_LENGTH, TEST_SEED, TEST_EXAMPLES = 64, 3, 32
# Few values are predicted in a run of these, so more runs are judged.
MORE = {
    "find_maximum_subarray_kadane": 32,
    **dict.fromkeys(("quickselect", "minimum", "binary_search", "segments_intersect"), 64),
    **dict.fromkeys(MATCHERS, 64),
}


class Examples(NamedTuple):
    """Runs of an algorithm on graphs of one size; every leaf starts with the axis of examples `B`.

    Scalars, masks and one-hot classes are float32 (a mask is -1 where nothing is asked), pointers
    int32. Their axes after `B` are those of `clrs_probes.shape`.

    Attributes:
        inputs: By name, such as `pos`, [B, ...].
        hints: By name, [B, T, ...]: before the first step, after it, and so on; zeros after a run's
            end.
        outputs: By name, [B, ...].
        lengths: Of each run's hints, in [1, T], int32 [B].
    """

    inputs: dict[str, Array]
    hints: dict[str, Array]
    outputs: dict[str, Array]
    lengths: Array


def lengths(algorithm: str, wanted: tuple[int, ...] = LENGTHS) -> tuple[int, ...]:
    """Sizes to train on: those wanted, but one size for string matchers.

    Args:
        algorithm: Such as `bfs`.
        wanted: Numbers of nodes.

    Returns:
        `wanted`; of a string matcher 5/4 of the greatest, where the needle's length varies instead,
        and at least as many as it needs.
    """
    return (max(max(wanted) * 5 // 4, least_nodes(algorithm)),) if algorithm in MATCHERS else wanted


def examples(
    algorithm: str, key: Key[Array, ""], number: int, length: int, *, steps: int = 0
) -> Examples:
    """Random examples as Ibarz et al. train and validate on.

    Edges are drawn with one of nine probabilities, needles are of 1 to 8 letters, and positions
    are sorted random numbers.

    Args:
        algorithm: One of `clrs_probes.ALGORITHMS`.
        key: Equal keys give equal examples.
        number: How many.
        length: Nodes of a graph; numbers to sort, letters of needle and haystack together.
        steps: Pads hints to this many at least.

    Raises:
        DataError: If dm-clrs is absent or of another release.
        ValueError: If `number` or `length` is too small, or there is no such algorithm.
    """
    least = least_nodes(algorithm)
    if number < 1 or length < least:
        said = f"`number` must be at least 1 and `length` at least {least}"
        raise ValueError(f"{said} for {algorithm}, but they are {number} and {length}.")
    seeds = np.asarray(jax.random.key_data(key)).ravel()
    drawn = _drawn(algorithm, number, seeds, length=length, **_varied(algorithm))
    rng = np.random.RandomState(np.append(seeds, 1))  # a stream beside the sampler's
    return _arranged(algorithm, drawn, steps, rng)


def least_nodes(algorithm: str) -> int:
    """The smallest size of graphs there is.

    Args:
        algorithm: Such as `bfs`.
    """
    return 2 * LONGEST_NEEDLE + 1 if algorithm in MATCHERS else 2


def benchmark(algorithm: str, length: int = TEST_LENGTH) -> Examples:
    """The test set of CLRS-30: graphs of 64 nodes, of which 16 at most are trained on.

    Args:
        algorithm: One of `clrs_probes.ALGORITHMS`.
        length: Nodes of a graph, for a smaller test drawn alike.

    Raises:
        DataError: If dm-clrs is absent or of another release.
    """
    spec(algorithm)  # says what there is
    number = TEST_EXAMPLES * MORE.get(algorithm, 1)
    return _arranged(algorithm, _drawn(algorithm, number, TEST_SEED, length=length))


def _varied(algorithm: str) -> dict[str, Any]:
    """What a sampler is to vary beside its random numbers."""
    if algorithm in MATCHERS:
        return {"length_needle": -LONGEST_NEEDLE}  # the package's word for: up to this many
    if any(probe.name == "adj" for probe in spec(algorithm)):
        return {"p": tuple(p / 2 for p in EDGES) if algorithm in SPARSE else EDGES}
    return {}


def _drawn(algorithm: str, number: int, seed: Any, **wanted: Any) -> Any:
    """Examples in the package's form."""
    sampler, _ = _samplers().build_sampler(algorithm, number, seed=seed, **wanted)
    return sampler.next()


def _arranged(
    algorithm: str, drawn: Any, steps: int = 0, rng: np.random.RandomState | None = None
) -> Examples:
    """Permutations and constant predecessors where `clrs_probes` has them, hints padded."""
    probes = spec(algorithm)
    inputs, hints, outputs = (
        {point.name: np.asarray(point.data) for point in points}
        for points in (drawn.features.inputs, drawn.features.hints, drawn.outputs)
    )
    hints = {name: np.moveaxis(hint, 0, 1) for name, hint in hints.items()}
    if any(probe.name == "pred" for probe in staged(probes, "input")):
        inputs["pred"] = hints.pop("pred_h")[:, 0]
    if any(probe.name == "pred_mask" for probe in probes):
        outputs["pred"], outputs["pred_mask"] = _cyclic(outputs["pred"].astype(np.int32))
    rest = max(0, steps - next(iter(hints.values())).shape[1])
    hints = {
        name: np.pad(hint, [(0, 0), (0, rest)] + [(0, 0)] * (hint.ndim - 2))
        for name, hint in hints.items()
    }
    nodes = inputs["pos"].shape[1]
    if rng is not None:
        inputs["pos"] = _random_positions(rng, inputs["pos"])
    return Examples(
        _typed(inputs, staged(probes, "input"), nodes, 1),
        _typed(hints, staged(probes, "hint"), nodes, 2),
        _typed(outputs, staged(probes, "output"), nodes, 1),
        jnp.asarray(drawn.features.lengths, jnp.int32),
    )


def _typed(
    arrays: dict[str, np.ndarray], probes: Spec, nodes: int, leading: int
) -> dict[str, Array]:
    """What the probes say must be there, in their types and shapes."""
    typed = {}
    for probe in probes:
        array = arrays.get(probe.name)
        if array is None or array.shape[leading:] != shape(probe, nodes):
            raise DataError(
                "dm-clrs", f"its `{probe.name}` is not as release {RELEASE} has it", REMEDY
            )
        typed[probe.name] = jnp.asarray(array, jnp.int32 if probe.kind in POINTERS else jnp.float32)
    return typed


def _cyclic(pointers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of predecessors, the first node its own, [B, N]: the first points to the last, and its mask."""
    own = np.arange(pointers.shape[1])
    first = pointers == own
    last = np.array([np.setdiff1d(own, row[row != own]).max() for row in pointers])
    return np.where(first, last[:, None], pointers), first.astype(np.float32)


def _random_positions(rng: np.random.RandomState, positions: np.ndarray) -> np.ndarray:
    """Sorted random numbers in [0, 1) for each stretch of positions, which starts at zero."""
    drawn = rng.uniform(size=positions.shape)
    stretch = np.cumsum(positions == 0, axis=1)
    order = np.lexsort((drawn, stretch))  # numbers sorted within their stretch, row by row
    return np.take_along_axis(drawn, order, axis=1)


def _samplers() -> ModuleType:
    """The package's module of samplers, without the rest of it, which imports TensorFlow."""
    if "clrs" in sys.modules:
        return importlib.import_module("clrs._src.samplers")
    found = importlib.util.find_spec("clrs")
    if found is None or found.submodule_search_locations is None:
        raise DataError("dm-clrs", "this package is not installed", REMEDY)
    with _stand_ins(list(found.submodule_search_locations)):
        return importlib.import_module("clrs._src.samplers")


@contextmanager
def _stand_ins(folders: list[str]) -> Generator[None]:
    """A parent package that does nothing, and a TensorFlow of which only `Tensor` is asked for.

    They are gone afterwards, so that `import clrs` means the real package.
    """
    clrs, tensorflow = ModuleType("clrs"), ModuleType("tensorflow")
    clrs.__path__ = folders
    tensorflow.__dict__["Tensor"] = type("Tensor", (), {})
    placed = {m.__name__: m for m in (clrs, tensorflow) if m.__name__ not in sys.modules}
    sys.modules.update(placed)
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]
