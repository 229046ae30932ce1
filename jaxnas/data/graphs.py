"""Graphs whose nodes are to be classified: Cora, CiteSeer, PubMed and PPI, from the user's files.

Sen et al. 2008, Collective Classification in Network Data, with the splits of Yang et al. 2016
(Planetoid): 20 training nodes a class, the 500 nodes after them for validation, 1,000 for test,
all in one graph. PPI of Zitnik & Leskovec 2017 as prepared by Hamilton et al. 2017 (GraphSAGE) has
24 graphs, each of them wholly in one split, and 121 labels a node. Features come as they are
stored; most authors divide them by their sum: `row_normalise`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnas.data.dataset import DataError, find, require
from jaxnas.data.planetoid_files import REMEDY, Citations, read_planetoid, read_planetoid_npz
from jaxnas.data.ppi_files import REMEDY as PPI_REMEDY, SPLITS, Component, read_ppi

FOLDER, PPI_FILE = "planetoid", "ppi/train_graph.json"
LICENCE = "none stated by its authors"
SOURCE = "Sen et al. 2008; splits of Yang, Cohen and Salakhutdinov 2016, arXiv:1603.08861"
VALID = 500
CLASSES = {
    "cora": (
        "Theory",
        "Reinforcement_Learning",
        "Genetic_Algorithms",
        "Neural_Networks",
        "Probabilistic_Methods",
        "Case_Based",
        "Rule_Learning",
    ),
    "citeseer": ("AI", "ML", "IR", "DB", "Agents", "HCI"),
}
PPI_SOURCE = "Zitnik and Leskovec 2017; prepared by Hamilton, Ying and Leskovec 2017"


@dataclass(frozen=True)
class Graph:
    """A graph with features and labels of its nodes.

    Attributes:
        name: The name used in tables and in the catalogue.
        features: float32 [N, F].
        labels: int32 [N], -1 where unknown; or, of several labels a node, 0 and 1, [N, K].
        edges: Sources and targets, int32 [2, E]: each pair of neighbours both ways and once each,
            no node with itself, sorted by target.
        train: Nodes that weights are trained on, bool [N].
        valid: Nodes that a search may look at, bool [N].
        test: Nodes that only the final number may look at, bool [N].
        classes: One name a label.
        licence: The licence its authors state, or that they state none.
        source: Authors, year and where it comes from.
        note: What must be printed beside every number; else empty.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    edges: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...]
    licence: str
    source: str
    note: str = ""


def cora(folder: Path | str | None = None) -> Graph:
    """Cora: 2,708 papers on machine learning, 5,278 citations, 1,433 words, seven classes.

    Args:
        folder: Look only here; `None` looks in all of `data_folders()`. In it `planetoid/cora.npz`
            is taken, else the official files `planetoid/ind.cora.*`.

    Returns:
        The graph.

    Raises:
        DataError: If neither is found, or what is found is damaged.
    """
    return _citations("cora", folder)


def citeseer(folder: Path | str | None = None) -> Graph:
    """CiteSeer: 3,327 papers on computer science, 4,552 citations, 3,703 words, six classes.

    Two kinds of its nodes are often called isolated. Of 15 nodes only a citation or two are known:
    their indices lie among those of the test nodes, but Planetoid's list of test nodes leaves them
    out. They stay in the graph, so that indices keep their meaning, with features of zero and the
    label -1, and are in no split. Another 48 (12 of them test nodes, 6 validation, none training)
    have words and a label but no neighbours: they are classified by their words alone, for
    attention adds a loop to every node.

    Args:
        folder: Look only here; `None` looks in all of `data_folders()`. In it
            `planetoid/citeseer.npz` is taken, else the official files `planetoid/ind.citeseer.*`.

    Returns:
        The graph.

    Raises:
        DataError: If neither is found, or what is found is damaged.
    """
    return _citations("citeseer", folder)


def pubmed(folder: Path | str | None = None) -> Graph:
    """PubMed: 19,717 papers on diabetes, 44,324 citations, 500 words by tf-idf, three classes.

    Args:
        folder: Look only here for the official files `planetoid/ind.pubmed.*`; `None` looks in all
            of `data_folders()`.

    Returns:
        The graph.

    Raises:
        DataError: If they are not found, or damaged.
    """
    return _citations("pubmed", folder)


def planetoid(folder: Path | str, name: str) -> Graph:
    """A citation network from the official files `ind.NAME.*`.

    Args:
        folder: Where the files themselves lie.
        name: `cora`, `citeseer` or `pubmed`.

    Returns:
        The graph.

    Raises:
        DataError: If a file is absent, damaged, asks for code, or does not fit the others.
    """
    path = Path(folder).expanduser()
    return _graph(path, name, read_planetoid(path, name))


def ppi(folder: Path | str | None = None) -> tuple[list[Graph], list[Graph], list[Graph]]:
    """PPI: proteins in 24 human tissues, 50 features, 121 functions of which a node has several.

    Args:
        folder: Look only here; `None` looks in all of `data_folders()`. In it the folder `ppi`
            holds `*_feats.npy`, `*_labels.npy`, `*_graph_id.npy` and `*_graph.json` of `train`,
            `valid` and `test`.

    Returns:
        20 graphs to train on, two for validation, two for test; the mask of its split is true for
        every node of a graph.

    Raises:
        DataError: If a file is absent, damaged, or does not fit the others.
    """
    path = require(PPI_FILE, PPI_REMEDY, folder).parent
    train, valid, test = (
        [_tissue(split, part) for part in read_ppi(path, split)] for split in SPLITS
    )
    return train, valid, test


def row_normalise(features: np.ndarray) -> np.ndarray:
    """Divide the features of each node by their sum, as most authors feed bags of words.

    Args:
        features: float32 [N, F].

    Returns:
        float32 [N, F]; rows that sum to zero as they were.
    """
    total = features.sum(1, keepdims=True)
    return features / np.where(total == 0, np.float32(1), total)


def citation_files(name: str) -> tuple[str, str]:
    """Where a citation network lies in a data folder: as one file, and the first of the official.

    Args:
        name: `cora`, `citeseer` or `pubmed`.

    Returns:
        Two paths, the first preferred.
    """
    return f"{FOLDER}/{name}.npz", f"{FOLDER}/ind.{name}.graph"


def _citations(name: str, folder: Path | str | None) -> Graph:
    """A citation network from whichever form is there."""
    single, official = citation_files(name)
    path = find(single, folder)
    if path:
        return _graph(path, name, read_planetoid_npz(path))
    return planetoid(require(official, REMEDY, folder).parent, name)


def _graph(path: Path, name: str, read: Citations) -> Graph:
    """Splits, names and edges of a network that was read, once it makes sense."""
    classes = CLASSES.get(name, _numbers(int(read.labels.max()) + 1))
    cause = _flaw(read, len(classes))
    if cause:
        raise DataError(path, cause, REMEDY)
    nodes = np.arange(len(read.features))
    return Graph(
        name=name,
        features=read.features,
        labels=read.labels,
        edges=_both_ways(read.links),
        train=nodes < read.train,
        valid=(nodes >= read.train) & (nodes < read.train + VALID),
        test=np.isin(nodes, read.test),
        classes=classes,
        licence=LICENCE,
        source=SOURCE,
    )


def _flaw(read: Citations, classes: int) -> str:
    """What is wrong with a network, or nothing."""
    nodes, early = len(read.features), read.train + VALID
    if read.labels.shape != (nodes,):
        return f"it holds {nodes} nodes and labels {list(read.labels.shape)}"
    if len(read.links) and not 0 <= read.links.min() <= read.links.max() < nodes:
        return f"it links nodes other than 0..{nodes - 1}"
    if not (read.train >= 1 and early <= read.test.min() and read.test.max() < nodes):
        return f"{nodes} nodes do not hold {read.train} for training, {VALID} more, then the test's"
    judged = np.concatenate([read.labels[:early], read.labels[read.test]])
    if judged.min() < 0 or judged.max() >= classes:
        return f"labels run from {judged.min()} to {judged.max()}, not within 0..{classes - 1}"
    return ""


def _tissue(split: str, part: Component) -> Graph:
    """One graph of PPI."""
    nodes = len(part.features)
    train, valid, test = (np.full(nodes, name == split) for name in SPLITS)
    return Graph(
        name="ppi",
        features=part.features,
        labels=part.labels,
        edges=_both_ways(part.links),
        train=train,
        valid=valid,
        test=test,
        classes=_numbers(part.labels.shape[1]),
        licence=LICENCE,
        source=PPI_SOURCE,
    )


def _both_ways(links: np.ndarray) -> np.ndarray:
    """Each pair of neighbours both ways and once each, sorted by target, int32 [2, E]."""
    links = links[links[:, 0] != links[:, 1]].astype(np.int64)
    size = links.max(initial=0) + 1
    ends = np.concatenate([links, links[:, ::-1]])
    target, source = np.divmod(np.unique(ends[:, 1] * size + ends[:, 0]), size)
    return np.stack([source, target]).astype(np.int32)


def _numbers(count: int) -> tuple[str, ...]:
    """Names of classes that have none."""
    return tuple(map(str, range(count)))
