"""The systems that can be run, one file each: `Config`, `PRESETS` and `build(config) -> System`.

To add one, write its file and add its line here; the CLI, the contract tests, the README's table
and the reports read this dict.
"""

import difflib
import importlib
from types import ModuleType
from typing import NamedTuple


class Entry(NamedTuple):
    """A system that can be run.

    Attributes:
      module: where `Config`, `PRESETS` and `build` are; imported when needed.
      method: the file that holds the method.
      title: what it is, in a line.
      paper: where it comes from.
      bibtex: how to cite that.
      notebook: the notebook that shows it.
    """

    module: str
    method: str
    title: str
    paper: str
    bibtex: str
    notebook: str = ""


RECIPES: dict[str, Entry] = {
    "random_search": Entry(
        "jaxnas.recipes.random_search",
        "jaxnas/evolve/random_search.py",
        "Random search, the baseline of every other system",
        "Bergstra & Bengio, JMLR 2012",
        "@article{bergstra2012random, title={Random Search for Hyper-Parameter Optimization}, "
        "author={Bergstra, James and Bengio, Yoshua}, journal={Journal of Machine Learning "
        "Research}, volume={13}, pages={281--305}, year={2012}}",
        "notebooks/00_first_search.ipynb",
    ),
    "aging_evolution": Entry(
        "jaxnas.recipes.aging_evolution",
        "jaxnas/evolve/regularized.py",
        "Aging (regularized) evolution",
        "Real et al., AAAI 2019, arXiv:1802.01548",
        "@inproceedings{real2019regularized, title={Regularized Evolution for Image Classifier "
        "Architecture Search}, author={Real, Esteban and Aggarwal, Alok and Huang, Yanping and "
        "Le, Quoc V.}, booktitle={AAAI}, year={2019}}",
        "notebooks/00_first_search.ipynb",
    ),
    "darts": Entry(
        "jaxnas.recipes.darts",
        "jaxnas/oneshot/darts.py",
        "DARTS, first and second order",
        "Liu et al., ICLR 2019, arXiv:1806.09055",
        "@inproceedings{liu2019darts, title={{DARTS}: Differentiable Architecture Search}, "
        "author={Liu, Hanxiao and Simonyan, Karen and Yang, Yiming}, booktitle={ICLR}, year={2019}}",
        "notebooks/00_first_search.ipynb",
    ),
    "drnas": Entry(
        "jaxnas.recipes.drnas",
        "jaxnas/oneshot/drnas.py",
        "DrNAS, Dirichlet architecture weights",
        "Chen et al., ICLR 2021, arXiv:2006.10355",
        "@inproceedings{chen2021drnas, title={{DrNAS}: Dirichlet Neural Architecture Search}, "
        "author={Chen, Xiangning and Wang, Ruochen and Cheng, Minhao and Tang, Xiaocheng and "
        "Hsieh, Cho-Jui}, booktitle={ICLR}, year={2021}}",
        "notebooks/00_first_search.ipynb",
    ),
}


def load(name: str) -> ModuleType:
    """Imports a recipe.

    Raises:
      ValueError: if there is none of that name.
    """
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"Unknown recipe {name!r}; there are {', '.join(RECIPES)}.{hint}")
    return importlib.import_module(RECIPES[name].module)
