"""Protein interactions in the files that GraphSAGE's successors train on.

Four files a split: `*_feats.npy` and `*_labels.npy` of all nodes, `*_graph_id.npy` that says which
graph each belongs to, and `*_graph.json`, whose `links` name two nodes each by their rows.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError
from jaxnas.data.files import read_bytes, read_npy

SPLITS = ("train", "valid", "test")
REMEDY = "Unpack ppi.zip (https://data.dgl.ai/dataset/ppi.zip) into a folder `ppi`."


class Component(NamedTuple):
    """One graph of a split.

    Attributes:
        features: float32 [N, F].
        labels: 0 and 1, int32 [N, K].
        links: Pairs of nodes in any form, int64 [L, 2], counted within this graph.
    """

    features: np.ndarray
    labels: np.ndarray
    links: np.ndarray


def read_ppi(folder: Path, split: str) -> list[Component]:
    """Read the graphs of one split, in the order of their numbers.

    Args:
        folder: Where the files lie.
        split: One of `SPLITS`.

    Returns:
        The graphs.

    Raises:
        DataError: If a file is absent or damaged, or they do not fit together.
    """
    features, labels, graph = (
        read_npy(folder / f"{split}_{part}.npy", REMEDY) for part in ("feats", "labels", "graph_id")
    )
    path = folder / f"{split}_graph.json"
    links = _links(path)
    cause = _misfit(features, labels, graph, links)
    if cause:
        raise DataError(path, cause, REMEDY)
    home, parts = graph[links[:, 0]], []
    for number in np.unique(graph):
        rows = np.flatnonzero(graph == number)
        inner = np.searchsorted(rows, links[home == number])
        parts.append(Component(features[rows].astype(np.float32), labels[rows].astype("i4"), inner))
    return parts


def _links(path: Path) -> np.ndarray:
    """Both ends of every link, int64 [L, 2]."""
    try:
        links = json.loads(read_bytes(path, REMEDY))["links"]
        pairs = [(link["source"], link["target"]) for link in links]
        return np.array(pairs).astype(np.int64, casting="safe").reshape(-1, 2)
    except (KeyError, TypeError, ValueError) as error:
        cause = f"it is no graph with links of rows ({type(error).__name__}: {error})"
        raise DataError(path, cause, REMEDY) from error


def _misfit(features: np.ndarray, labels: np.ndarray, graph: np.ndarray, links: np.ndarray) -> str:
    """What does not fit together, or nothing."""
    nodes = len(graph)
    if features.ndim != 2 or labels.ndim != 2 or graph.ndim != 1:
        return "features and labels must be tables and graph numbers a list"
    if not all(array.dtype.kind in "biuf" for array in (features, labels, graph)):
        return "features, labels and graph numbers must be numbers"
    if len(features) != nodes or len(labels) != nodes or not nodes:
        return f"{len(features)} features, {len(labels)} labels, {nodes} graph numbers: not equal"
    if not np.isin(labels, (0, 1)).all():
        return "labels other than 0 and 1"
    if len(links) and (links.min() < 0 or links.max() >= nodes):
        return f"it links nodes other than 0..{nodes - 1}"
    crossing = (graph[links[:, 0]] != graph[links[:, 1]]).any()
    return "it links nodes of different graphs" if crossing else ""
