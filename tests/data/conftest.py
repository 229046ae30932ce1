from pathlib import Path

import pytest

from jaxnas.data import dataset


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only data folder there is, empty; the cache lies in a folder of its own."""
    named = tmp_path / "named"
    named.mkdir()
    monkeypatch.setenv("JAXNAS_DATA", str(named))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "BESIDE_CHECKOUT", tmp_path / "absent")
    monkeypatch.setattr(dataset, "SYSTEM_FOLDER", tmp_path / "absent")
    return named


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Paths of real data, or a skip that says what is missing; nothing is cached at home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def path(name: str) -> Path:
        found = dataset.find(name)
        if found is None:
            pytest.skip(f"{name} is in none of the data folders")
        return found

    return path
