import importlib
import subprocess
import sys

import pytest

from jaxnas import data
from jaxnas.data import catalog
from jaxnas.data.dataset import DataError

GENERATED = [name for name, entry in catalog.DATASETS.items() if not entry.files]
FROM_FILES = [name for name, entry in catalog.DATASETS.items() if entry.files]


def loader(entry):
    module, function = entry.loader.split(":")
    return getattr(importlib.import_module(module), function)


@pytest.mark.parametrize("name", GENERATED)
def test_what_is_generated_needs_no_file(folder, name):
    loaded = data.load(name)
    assert loaded.name == name
    for split in (loaded.train, loaded.valid, loaded.test):
        assert len(split.x) == len(split.y) > 0
        assert split.y.min() >= 0
        assert split.y.max() < len(loaded.classes)
    assert len(loaded.mean) == len(loaded.std)
    assert loaded.licence
    assert loaded.source


@pytest.mark.parametrize("name", FROM_FILES)
def test_what_is_read_says_how_to_get_it_when_it_is_absent(folder, name):
    with pytest.raises(DataError, match="not found in") as caught:
        loader(catalog.DATASETS[name])()
    assert caught.value.remedy.split()[0] in catalog.DATASETS[name].how


def test_an_unknown_name_is_answered_with_close_ones():
    with pytest.raises(ValueError, match=r"'mnist1'\. Did you mean mnist1d"):
        data.load("mnist1")
    with pytest.raises(ValueError, match=r"'qqq'\. Known: mnist1d, "):
        data.load("qqq")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nas_bench_201", r"is a table, .* jaxnas\.data\.tables\.nas_bench_201\(\)"),
        ("cora", r"is a graph, .* jaxnas\.data\.graphs\.cora\(\)"),
    ],
)
def test_a_table_or_a_graph_is_not_loaded_as_a_data_set(name, says):
    with pytest.raises(ValueError, match=says):
        data.load(name)


def test_the_survey_tells_generated_present_and_absent_apart(folder):
    (folder / "mnist").mkdir()
    (folder / "mnist" / "train-images-idx3-ubyte.gz").touch()
    rows = {row.name: row for row in catalog.survey()}
    assert list(rows) == list(catalog.DATASETS)
    assert (rows["mnist1d"].here, rows["mnist1d"].where) == (True, "generated")
    assert rows["mnist"].where == str(folder / "mnist" / "train-images-idx3-ubyte.gz")
    assert (rows["cifar10"].here, rows["cifar10"].where) == (False, "")
    assert "cifar-10-python.tar.gz" in rows["cifar10"].how


def test_the_survey_imports_nothing_heavy():
    code = (
        "import sys; from jaxnas.data import catalog; catalog.survey();"
        "sys.exit(bool({'jax', 'PIL', 'scipy', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("entry", catalog.DATASETS.values(), ids=str)
def test_every_loader_exists(entry):
    assert callable(loader(entry))
