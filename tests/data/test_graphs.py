"""Graphs of papers and of proteins: real files where they are here, small ones in their formats."""

import json
import os
import pickle

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from jaxnas.data import graphs
from jaxnas.data.dataset import DataError

KNOWN, TRAIN, WORDS, CLASSES = 520, 6, 5, 3
TEST = [523, 520, 525, 521, 526]  # as the list may have it: shuffled, 522 and 524 left out
NODES = 527


@pytest.mark.parametrize(
    ("name", "nodes", "words", "links", "per_class"),
    [
        ("cora", 2708, 1433, 5278, [351, 217, 418, 818, 426, 298, 180]),
        ("citeseer", 3327, 3703, 4552, [249, 590, 668, 701, 596, 508]),
    ],
)
def test_real_networks_have_the_sizes_and_splits_their_authors_state(
    real, name, nodes, words, links, per_class
):
    real(f"planetoid/{name}.npz")
    graph = getattr(graphs, name)()
    assert graph.features.shape == (nodes, words)
    assert graph.edges.shape == (2, 2 * links)
    np.testing.assert_array_equal(np.bincount(graph.labels[graph.labels >= 0]), per_class)
    assert len(graph.classes) == len(per_class)
    np.testing.assert_array_equal(np.bincount(graph.labels[graph.train]), [20] * len(per_class))
    assert (graph.valid.sum(), graph.test.sum()) == (500, 1000)
    assert not (
        graph.train & graph.valid | graph.train & graph.test | graph.valid & graph.test
    ).any()
    assert (graph.labels[graph.train | graph.valid | graph.test] >= 0).all()


def test_edges_go_both_ways_once_each_and_are_sorted_by_target(real):
    real("planetoid/cora.npz")
    source, target = graphs.cora().edges
    pairs = set(zip(source.tolist(), target.tolist(), strict=True))
    assert len(pairs) == len(source)
    assert pairs == {(b, a) for a, b in pairs}
    assert (source != target).all()
    assert (np.diff(target) >= 0).all()


def test_nodes_of_citeseer_without_words_or_without_neighbours_are_what_is_said_of_them(real):
    real("planetoid/citeseer.npz")
    graph = graphs.citeseer()
    alone = np.bincount(graph.edges[1], minlength=3327) == 0
    unknown = graph.labels == -1
    assert (alone.sum(), unknown.sum(), (alone & unknown).sum()) == (48, 15, 0)
    assert not graph.features[unknown].any()
    assert not (unknown & (graph.train | graph.valid | graph.test)).any()
    splits = [(alone & mask).sum() for mask in (graph.train, graph.valid, graph.test)]
    assert splits == [0, 6, 12]
    np.testing.assert_allclose(graphs.row_normalise(graph.features).sum(1), ~unknown, rtol=1e-5)


def released(folder, protocol=2, old=True):
    """Writes the eight files of a small network; gives its features, labels and links."""
    rng = np.random.default_rng(0)
    x = (rng.random((NODES, WORDS)) < 0.4) * rng.random((NODES, WORDS)).astype(np.float32)
    y = np.arange(NODES) % CLASSES
    x[[522, 524]], y[[522, 524]] = 0, -1
    links = [(0, 0), (0, 523), (523, 0), (3, 526), (3, 526), (520, 521), (5, 4)]
    neighbours = {node: [b for a, b in links if a == node] for node in range(NODES)}
    one_hot = np.eye(CLASSES, dtype=np.int32)
    files = {
        "x": csr_matrix(x[:TRAIN]),
        "allx": csr_matrix(x[:KNOWN]),
        "tx": csr_matrix(x[TEST]),
        "y": one_hot[y[:TRAIN]],
        "ally": one_hot[y[:KNOWN]],
        "ty": one_hot[y[TEST]],
        "graph": neighbours,
    }
    for name, content in files.items():
        raw = pickle.dumps(content, protocol)
        raw = raw.replace(b"scipy.sparse._csr\n", b"scipy.sparse.csr\n") if old else raw
        (folder / f"ind.toy.{name}").write_bytes(raw)
    (folder / "ind.toy.test.index").write_text("".join(f"{node}\n" for node in TEST))
    return x, y, links


@pytest.mark.parametrize(("protocol", "old"), [(0, True), (2, True), (2, False), (5, False)])
def test_the_official_files_are_read_with_every_test_node_in_its_place(tmp_path, protocol, old):
    x, y, links = released(tmp_path, protocol, old)
    graph = graphs.planetoid(tmp_path, "toy")
    np.testing.assert_allclose(graph.features, x)
    np.testing.assert_array_equal(graph.labels, y)
    assert (graph.features.dtype, graph.labels.dtype) == (np.float32, np.int32)
    expected = {(a, b) for a, b in links if a != b} | {(b, a) for a, b in links if a != b}
    assert sorted(map(tuple, graph.edges.T.tolist())) == sorted(expected)
    assert np.flatnonzero(graph.train).tolist() == list(range(TRAIN))
    assert np.flatnonzero(graph.valid).tolist() == list(range(TRAIN, TRAIN + 500))
    assert np.flatnonzero(graph.test).tolist() == sorted(TEST)
    assert graph.classes == ("0", "1", "2")


def test_arrays_and_graphs_as_python_2_wrote_them_are_read(tmp_path):
    """Strings of bytes for an array's content, and `__builtin__.list` in a `defaultdict`."""
    released(tmp_path)
    kind = b"cnumpy\ndtype\nU\x02i4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    content = np.eye(CLASSES, dtype="<i4")[[2, 1, 0, 0, 200 % CLASSES]].tobytes()
    state = b"(K\x01K\x05K\x03\x86" + kind + b"\x89U" + bytes([len(content)]) + content + b"tb."
    (tmp_path / "ind.toy.ty").write_bytes(start + state)
    lists = (
        b"\x80\x02ccollections\ndefaultdict\nc__builtin__\nlist\n\x85R(K\x00]K\x01aK\x02]K\x00au."
    )
    (tmp_path / "ind.toy.graph").write_bytes(lists)
    graph = graphs.planetoid(tmp_path, "toy")
    assert graph.labels[TEST].tolist() == [2, 1, 0, 0, 2]
    assert graph.edges.T.tolist() == [[1, 0], [2, 0], [0, 1], [0, 2]]


class Hostile:
    """Would call something when unpickled."""

    def __init__(self, call, argument):
        self.call, self.argument = call, argument

    def __reduce__(self):
        return self.call, (self.argument,)


@pytest.mark.parametrize("part", ["allx", "ty", "graph"])
@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, csr_matrix.__new__, getattr])
def test_a_hostile_pickle_is_refused_by_the_name_it_asks_for(tmp_path, part, call):
    released(tmp_path)
    target = tmp_path / "made"
    argument = {os.mkdir: str(target), os.system: f"mkdir {target}"}.get(call, str(target))
    (tmp_path / f"ind.toy.{part}").write_bytes(pickle.dumps({"a": Hostile(call, argument)}, 2))
    with pytest.raises(DataError, match=rf"ind\.toy\.{part}: .*refused.*asks for \S+\.\w+"):
        graphs.planetoid(tmp_path, "toy")
    assert not target.exists()


def test_only_the_stand_in_of_the_matrix_is_reconstructed(tmp_path):
    released(tmp_path)
    raw = b"ccopy_reg\n_reconstructor\n(c__builtin__\nlist\nc__builtin__\nobject\nNtR."
    (tmp_path / "ind.toy.allx").write_bytes(raw)
    with pytest.raises(DataError, match="makes an object of"):
        graphs.planetoid(tmp_path, "toy")


def matrix(**changes):
    """A pickled matrix some of whose parts are wrong."""
    made = csr_matrix(np.ones((len(TEST), WORDS), np.float32))
    made.__dict__.update(changes)
    return pickle.dumps(made, 2)


@pytest.mark.parametrize(
    ("part", "content", "says"),
    [
        ("tx", matrix(indices=np.full(25, 9, np.int32)), "no matrix of 5 by 5"),
        ("tx", matrix(indptr=np.array([0, 9, 5, 15, 20, 25], np.int32)), "no matrix of 5 by 5"),
        ("tx", matrix(indices=np.array(["a"] * 25)), "no matrix of numbers"),
        ("tx", pickle.dumps([1]), "no matrix in rows"),
        ("tx", pickle.dumps(csr_matrix(np.ones((5, 4)))), "do not fit together"),
        ("ally", pickle.dumps(np.ones((3, CLASSES))), "do not fit together"),
        ("graph", pickle.dumps({0: [600]}), r"links nodes other than 0\.\.526"),
        ("graph", pickle.dumps([1]), "do not fit together"),
        ("test.index", b"520\n521\n522\n523\n523\n", "5 different nodes from 520 on"),
        ("test.index", b"5\n521\n522\n523\n524\n", "5 different nodes from 520 on"),
        ("test.index", b"a\n", "no list of numbers"),
        ("test.index", b"", "it is empty"),
        ("y", pickle.dumps(np.ones((300, CLASSES))), "do not hold 300 for training"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_the_reason(tmp_path, part, content, says):
    released(tmp_path)
    (tmp_path / f"ind.toy.{part}").write_bytes(content)
    with pytest.raises(DataError, match=says):
        graphs.planetoid(tmp_path, "toy")


def test_the_single_file_is_preferred_and_the_official_ones_are_found(folder):
    place = folder / "planetoid"
    place.mkdir()
    released(place)
    for path in list(place.iterdir()):
        path.rename(place / path.name.replace("toy", "cora"))
    official = graphs.cora()
    assert official.classes[0] == "Theory"
    (place / "cora.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cora\.npz: it is not a complete npz"):
        graphs.cora()


def proteins(folder, split, sizes, rng):
    """Writes one split; gives features, labels and links of each of its graphs."""
    owner = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    order = rng.permutation(len(owner))  # rows of a graph need not stand together
    owner = owner[order]
    x, y = rng.random((len(owner), 4)), rng.integers(0, 2, (len(owner), 3))
    parts, links = [], []
    for number in range(1, len(sizes) + 1):
        rows = np.flatnonzero(owner == number).tolist()
        inner = [(0, 1), (1, 2), (2, 2), (2, 0)]
        links += [{"source": rows[a], "target": rows[b]} for a, b in inner]
        parts.append((x[rows], y[rows]))
    np.save(folder / f"{split}_feats.npy", x)
    np.save(folder / f"{split}_labels.npy", y)
    np.save(folder / f"{split}_graph_id.npy", owner)
    nodes = [{"id": int(row)} for row in range(len(owner))]
    whole = {"directed": False, "graph": {}, "nodes": nodes, "links": links, "multigraph": False}
    (folder / f"{split}_graph.json").write_text(json.dumps(whole))
    return parts


def all_proteins(folder):
    place, rng = folder / "ppi", np.random.default_rng(0)
    place.mkdir()
    sizes = {"train": [4, 3, 6], "valid": [5], "test": [3, 4]}
    return place, {split: proteins(place, split, size, rng) for split, size in sizes.items()}


def test_proteins_come_as_separate_graphs_each_in_one_split(folder):
    _, written = all_proteins(folder)
    read = dict(zip(written, graphs.ppi(), strict=True))
    for split, parts in written.items():
        assert len(read[split]) == len(parts)
        for graph, (x, y) in zip(read[split], parts, strict=True):
            np.testing.assert_array_equal(graph.features, x.astype(np.float32))
            np.testing.assert_array_equal(graph.labels, y)
            assert graph.edges.T.tolist() == [[1, 0], [2, 0], [0, 1], [2, 1], [0, 2], [1, 2]]
            masks = {name: getattr(graph, name) for name in written}
            assert all((mask == (name == split)).all() for name, mask in masks.items())
            assert all(mask.shape == (len(x),) for mask in masks.values())
            assert graph.classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("valid_graph.json", json.dumps({"links": [{"source": 0, "target": 9}]}), r"0\.\.4"),
        ("train_graph.json", json.dumps({"links": [{"source": 0.5, "target": 1}]}), "no graph"),
        ("train_graph.json", json.dumps({"nodes": []}), "no graph with links"),
        ("train_graph.json", "{", "no graph with links"),
        ("test_feats.npy", np.ones((6, 4)), "6 features, 7 labels"),
        ("test_feats.npy", np.full((7, 4), "a"), "must be numbers"),
        ("valid_labels.npy", np.full((5, 3), 2), "other than 0 and 1"),
        ("valid_labels.npy", np.full((5, 3), None), "damaged"),
        ("valid_graph_id.npy", np.array([1, 2, 3, 4, 5]), "links nodes of different graphs"),
    ],
)
def test_proteins_that_do_not_fit_are_refused_with_the_reason(folder, name, content, says):
    place, _ = all_proteins(folder)
    if isinstance(content, str):
        (place / name).write_text(content)
    else:
        np.save(place / name, content)
    with pytest.raises(DataError, match=says):
        graphs.ppi()


def test_rows_are_divided_by_their_sum_and_empty_ones_left():
    rows = graphs.row_normalise(np.array([[1, 1, 2], [0, 0, 0]], np.float32))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[0.25, 0.25, 0.5], [0, 0, 0]])
