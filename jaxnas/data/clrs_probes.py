"""What there is to see of the 30 algorithms of CLRS-30: inputs, outputs and hints, with their kinds.

Velickovic et al., The CLRS Algorithmic Reasoning Benchmark, ICML 2022, arXiv:2205.15659, as its
package dm-clrs 2.0.3 states them, after the two changes that Ibarz et al., A Generalist Neural
Algorithmic Learner, LoG 2022, arXiv:2209.11142, train with: orders of nodes are asked for as
permutations (a cyclic pointer and the mask of the first node), and predecessors that never change
are an input `pred` instead of a hint. Earlier releases have no hint `pivot` of Quickselect.
"""

from typing import NamedTuple

STAGES = ("input", "output", "hint")
POINTERS = ("pointer", "permutation_pointer")


class Probe(NamedTuple):
    """One thing that is seen of an algorithm.

    Attributes:
        name: Such as `pi_h`.
        stage: `input` or `output`, seen once, or `hint`, seen after every step.
        place: What has a value of its own: each `node`, each `edge` (any pair of nodes) or the
            `graph` as a whole.
        kind: `scalar`; `mask`, 0 or 1; `mask_one`, 1 at one node; `categorical`, one of `classes`;
            `pointer`, the number of a node; `permutation_pointer`, pointers of which no two agree.
        classes: Number of classes of a `categorical`, else 0.
    """

    name: str
    stage: str
    place: str
    kind: str
    classes: int = 0


Spec = tuple[Probe, ...]


def spec(algorithm: str) -> Spec:
    """All probes of an algorithm, inputs first, then outputs, then hints.

    Args:
        algorithm: One of `ALGORITHMS`, such as `bfs`.

    Raises:
        ValueError: If there is no such algorithm.
    """
    if algorithm not in _PROBES:
        known = ", ".join(_PROBES)
        raise ValueError(f"`algorithm` must be one of {known}, but is {algorithm!r}.")
    stages = zip(STAGES, _PROBES[algorithm], strict=True)
    return tuple(_probe(word, stage) for stage, words in stages for word in words.split())


def staged(probes: Spec, stage: str) -> Spec:
    """The probes of one stage."""
    return tuple(probe for probe in probes if probe.stage == stage)


def shape(probe: Probe, nodes: int, *, predicted: bool = False) -> tuple[int, ...]:
    """Axes of a probe's value in a graph.

    Args:
        probe: Which.
        nodes: Of the graph.
        predicted: Whether of its logits, which rate all nodes for a pointer.
    """
    places = {"node": (nodes,), "edge": (nodes, nodes), "graph": ()}[probe.place]
    rated = (nodes,) if predicted and probe.kind in POINTERS else ()
    return (*places, *rated, *((probe.classes,) if probe.classes else ()))


def _probe(word: str, stage: str) -> Probe:
    """`name`, `name:kind` or `name:place.kind`, a node's scalar unless said, classes at the end."""
    name, _, told = word.partition(":")
    place, _, kind = told.rpartition(".")
    classes = kind.removeprefix("categorical") if kind.startswith("categorical") else ""
    return Probe(
        name, stage, place or "node", kind.rstrip("0123456789") or "scalar", int(classes or 0)
    )


# Of each algorithm: inputs, outputs, hints.
_PROBES: dict[str, tuple[str, str, str]] = {
    "activity_selector": (
        "pos s f pred:pointer",
        "selected:mask",
        "selected_h:mask m:mask_one k:mask_one",
    ),
    "articulation_points": (
        "pos A:edge.scalar adj:edge.mask",
        "is_cut:mask",
        "is_cut_h:mask pi_h:pointer color:categorical3 d f low child_cnt s_prev:pointer "
        "s:mask_one u:mask_one v:mask_one s_last:mask_one time:graph.scalar",
    ),
    "bellman_ford": (
        "pos s:mask_one A:edge.scalar adj:edge.mask",
        "pi:pointer",
        "pi_h:pointer d msk:mask",
    ),
    "bfs": (
        "pos s:mask_one A:edge.scalar adj:edge.mask",
        "pi:pointer",
        "reach_h:mask pi_h:pointer",
    ),
    "binary_search": (
        "pos key target:graph.scalar pred:pointer",
        "return:mask_one",
        "low:mask_one high:mask_one mid:mask_one",
    ),
    "bridges": (
        "pos A:edge.scalar adj:edge.mask",
        "is_bridge:edge.mask",
        "is_bridge_h:edge.mask pi_h:pointer color:categorical3 d f low s_prev:pointer "
        "s:mask_one u:mask_one v:mask_one s_last:mask_one time:graph.scalar",
    ),
    "bubble_sort": (
        "pos key",
        "pred:permutation_pointer pred_mask:mask_one",
        "pred_h:pointer i:mask_one j:mask_one",
    ),
    "dag_shortest_paths": (
        "pos s:mask_one A:edge.scalar adj:edge.mask",
        "pi:pointer",
        "pi_h:pointer d mark:mask topo_h:pointer topo_head_h:mask_one color:categorical3 "
        "s_prev:pointer u:mask_one v:mask_one s_last:mask_one phase:graph.mask",
    ),
    "dfs": (
        "pos A:edge.scalar adj:edge.mask",
        "pi:pointer",
        "pi_h:pointer color:categorical3 d f s_prev:pointer s:mask_one u:mask_one v:mask_one "
        "s_last:mask_one time:graph.scalar",
    ),
    "dijkstra": (
        "pos s:mask_one A:edge.scalar adj:edge.mask",
        "pi:pointer",
        "pi_h:pointer d mark:mask in_queue:mask u:mask_one",
    ),
    "find_maximum_subarray_kadane": (
        "pos key pred:pointer",
        "start:mask_one end:mask_one",
        "best_low:mask_one best_high:mask_one best_sum:graph.scalar i:mask_one j:mask_one "
        "sum:graph.scalar",
    ),
    "floyd_warshall": (
        "pos A:edge.scalar adj:edge.mask",
        "Pi:edge.pointer",
        "Pi_h:edge.pointer D:edge.scalar msk:edge.mask k:mask_one",
    ),
    "graham_scan": (
        "pos x y",
        "in_hull:mask",
        "best:mask_one atans in_hull_h:mask stack_prev:pointer last_stack:mask_one i:mask_one "
        "phase:graph.categorical5",
    ),
    "heapsort": (
        "pos key",
        "pred:permutation_pointer pred_mask:mask_one",
        "pred_h:pointer parent:pointer i:mask_one j:mask_one largest:mask_one "
        "heap_size:mask_one phase:graph.categorical3",
    ),
    "insertion_sort": (
        "pos key",
        "pred:permutation_pointer pred_mask:mask_one",
        "pred_h:pointer i:mask_one j:mask_one",
    ),
    "jarvis_march": (
        "pos x y pred:pointer",
        "in_hull:mask",
        "in_hull_h:mask best:mask_one last_point:mask_one endpoint:mask_one i:mask_one "
        "phase:graph.categorical2",
    ),
    "kmp_matcher": (
        "string:mask pos key:categorical4 pred:pointer",
        "match:mask_one",
        "pi:pointer is_reset:mask k:mask_one k_reset:graph.mask q:mask_one q_reset:graph.mask "
        "s:mask_one i:mask_one phase:graph.mask",
    ),
    "lcs_length": (
        "string:mask pos key:categorical4 pred:pointer",
        "b:edge.categorical4",
        "b_h:edge.categorical4 c:edge.scalar",
    ),
    "matrix_chain_order": (
        "pos p pred:pointer",
        "s:edge.pointer",
        "m:edge.scalar s_h:edge.pointer msk:edge.mask",
    ),
    "minimum": (
        "pos key pred:pointer",
        "min:mask_one",
        "min_h:mask_one i:mask_one",
    ),
    "mst_kruskal": (
        "pos A:edge.scalar adj:edge.mask",
        "in_mst:edge.mask",
        "in_mst_h:edge.mask pi:pointer u:mask_one v:mask_one root_u:mask_one root_v:mask_one "
        "mask_u:mask mask_v:mask phase:graph.categorical3",
    ),
    "mst_prim": (
        "pos s:mask_one A:edge.scalar adj:edge.mask",
        "pi:pointer",
        "pi_h:pointer key mark:mask in_queue:mask u:mask_one",
    ),
    "naive_string_matcher": (
        "string:mask pos key:categorical4 pred:pointer",
        "match:mask_one",
        "s:mask_one i:mask_one j:mask_one",
    ),
    "optimal_bst": (
        "pos p q pred:pointer",
        "root:edge.pointer",
        "root_h:edge.pointer e:edge.scalar w:edge.scalar msk:edge.mask",
    ),
    "quickselect": (
        "pos key",
        "median:mask_one",
        "pred_h:pointer p:mask_one r:mask_one i:mask_one j:mask_one i_rank:graph.scalar "
        "target:graph.scalar pivot:mask_one",
    ),
    "quicksort": (
        "pos key",
        "pred:permutation_pointer pred_mask:mask_one",
        "pred_h:pointer p:mask_one r:mask_one i:mask_one j:mask_one",
    ),
    "segments_intersect": (
        "pos x y",
        "intersect:graph.mask",
        "i:mask_one j:mask_one k:mask_one dir on_seg:mask",
    ),
    "strongly_connected_components": (
        "pos A:edge.scalar adj:edge.mask",
        "scc_id:pointer",
        "scc_id_h:pointer A_t:edge.mask color:categorical3 d f s_prev:pointer s:mask_one "
        "u:mask_one v:mask_one s_last:mask_one time:graph.scalar phase:graph.mask",
    ),
    "task_scheduling": (
        "pos d w pred:pointer",
        "selected:mask",
        "selected_h:mask i:mask_one t:graph.scalar",
    ),
    "topological_sort": (
        "pos A:edge.scalar adj:edge.mask",
        "topo:pointer topo_head:mask_one",
        "topo_h:pointer topo_head_h:mask_one color:categorical3 s_prev:pointer s:mask_one "
        "u:mask_one v:mask_one s_last:mask_one",
    ),
}
ALGORITHMS: tuple[str, ...] = tuple(_PROBES)
