import pickle
from pathlib import Path

import numpy as np
import pytest

from jaxnas.data import dataset
from jaxnas.data.dataset import DataError, Split, checked_split, hold_out


def test_the_named_folder_comes_before_the_cache(folder):
    assert dataset.data_folders() == [folder, folder.parent / "cache" / "jaxnas"]


def test_without_a_named_folder_the_cache_is_searched(folder, monkeypatch):
    monkeypatch.delenv("JAXNAS_DATA")
    assert dataset.data_folders() == [folder.parent / "cache" / "jaxnas"]


def test_without_a_cache_variable_the_cache_is_below_home(folder, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(folder))
    assert dataset.cache_folder() == folder / ".cache" / "jaxnas"


def test_folders_beside_the_checkout_and_of_the_system_are_searched_if_they_exist(
    folder, monkeypatch
):
    beside, system = folder / "beside", folder / "system"
    beside.mkdir()
    system.mkdir()
    monkeypatch.setattr(dataset, "BESIDE_CHECKOUT", beside)
    monkeypatch.setattr(dataset, "SYSTEM_FOLDER", system)
    assert dataset.data_folders() == [folder, beside, dataset.cache_folder(), system]


def test_the_first_folder_that_has_the_file_wins(folder):
    cached = dataset.cache_folder() / "a.npz"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert dataset.find("a.npz") == cached
    (folder / "a.npz").touch()
    assert dataset.find("a.npz") == folder / "a.npz"
    assert dataset.find("a.npz", cached.parent) == cached


def test_an_absent_file_names_the_folders_searched_and_the_remedy(folder):
    with pytest.raises(DataError) as caught:
        dataset.require("a.npz", "Make it.")
    message = str(caught.value)
    assert message.startswith("a.npz: not found in")
    assert str(folder) in message
    assert "Make it." in message
    assert "JAXNAS_DATA" in message


def test_a_data_error_survives_pickling():
    error = pickle.loads(pickle.dumps(DataError("a", "it is b", "Do c.")))
    assert str(error) == "a: it is b. Do c."


def test_holding_out_takes_the_last_examples_and_loses_none():
    whole = Split(np.arange(10)[:, None], np.arange(10))
    train, valid = hold_out(whole, 3)
    assert valid.y.tolist() == [7, 8, 9]
    assert np.concatenate([train.x, valid.x]).tolist() == whole.x.tolist()


@pytest.mark.parametrize("n", [0, -1, 10, 11])
def test_holding_out_nothing_or_everything_is_refused(n):
    with pytest.raises(ValueError, match="`n` must be at least 1 and below the 10"):
        hold_out(Split(np.zeros((10, 1)), np.zeros(10)), n)


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        ([0, 1, 3], "labels run from 0 to 3, not within 0..2"),
        ([0, -1, 2], "labels run from -1 to 2"),
        ([0, 1], "3 examples and 2 labels"),
        ([0.0, 1.0, 2.0], "not integers"),
        ([[0], [1], [2]], "not integers"),
    ],
)
def test_wrong_labels_are_refused(labels, cause):
    with pytest.raises(DataError, match=cause):
        checked_split(Path("a"), np.zeros((3, 1)), np.array(labels), classes=3, remedy="Do b.")
