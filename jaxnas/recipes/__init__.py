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


DRNAS = (
    "@inproceedings{chen2021drnas, title={{DrNAS}: Dirichlet Neural Architecture Search}, "
    "author={Chen, Xiangning and Wang, Ruochen and Cheng, Minhao and Tang, Xiaocheng and "
    "Hsieh, Cho-Jui}, booktitle={ICLR}, year={2021}}"
)
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
    "pc_darts": Entry(
        "jaxnas.recipes.pc_darts",
        "jaxnas/oneshot/pc_darts.py",
        "PC-DARTS, partial channels and edge normalisation",
        "Xu et al., ICLR 2020, arXiv:1907.05737",
        "@inproceedings{xu2020pcdarts, title={{PC-DARTS}: Partial Channel Connections for "
        "Memory-Efficient Architecture Search}, author={Xu, Yuhui and Xie, Lingxi and Zhang, "
        "Xiaopeng and Chen, Xin and Qi, Guo-Jun and Tian, Qi and Xiong, Hongkai}, "
        "booktitle={ICLR}, year={2020}}",
        "notebooks/01_one_shot.ipynb",
    ),
    "sdarts": Entry(
        "jaxnas.recipes.sdarts",
        "jaxnas/oneshot/sdarts.py",
        "SDARTS, random and adversarial perturbation",
        "Chen & Hsieh, ICML 2020, arXiv:2002.05283",
        "@inproceedings{chen2020sdarts, title={Stabilizing Differentiable Architecture Search via "
        "Perturbation-based Regularization}, author={Chen, Xiangning and Hsieh, Cho-Jui}, "
        "booktitle={ICML}, year={2020}}",
        "notebooks/01_one_shot.ipynb",
    ),
    "sgas": Entry(
        "jaxnas.recipes.sgas",
        "jaxnas/oneshot/sgas.py",
        "SGAS, sequential greedy decisions",
        "Li et al., CVPR 2020, arXiv:1912.00195",
        "@inproceedings{li2020sgas, title={{SGAS}: Sequential Greedy Architecture Search}, "
        'author={Li, Guohao and Qian, Guocheng and Delgadillo, Itzel C. and M{\\"u}ller, Matthias '
        "and Thabet, Ali and Ghanem, Bernard}, booktitle={CVPR}, year={2020}}",
        "notebooks/01_one_shot.ipynb",
    ),
    "drnas": Entry(
        "jaxnas.recipes.drnas",
        "jaxnas/oneshot/drnas.py",
        "DrNAS, Dirichlet architecture weights",
        "Chen et al., ICLR 2021, arXiv:2006.10355",
        DRNAS,
        "notebooks/00_first_search.ipynb",
    ),
    "drnas_progressive": Entry(
        "jaxnas.recipes.drnas_progressive",
        "jaxnas/oneshot/drnas_progressive.py",
        "DrNAS with progressive learning",
        "Chen et al., ICLR 2021, arXiv:2006.10355",
        DRNAS,
        "notebooks/01_one_shot.ipynb",
    ),
    "darts_pt": Entry(
        "jaxnas.recipes.darts_pt",
        "jaxnas/oneshot/darts_pt.py",
        "DARTS-PT, perturbation-based selection",
        "Wang et al., ICLR 2021, arXiv:2108.04392",
        "@inproceedings{wang2021rethinking, title={Rethinking Architecture Selection in "
        "Differentiable {NAS}}, author={Wang, Ruochen and Cheng, Minhao and Chen, Xiangning and "
        "Tang, Xiaocheng and Hsieh, Cho-Jui}, booktitle={ICLR}, year={2021}}",
        "notebooks/01_one_shot.ipynb",
    ),
    "optimizer_search": Entry(
        "jaxnas.recipes.optimizer_search",
        "jaxnas/formulas/optimizer_search.py",
        "Efficient non-parametric optimizer search",
        "Wang et al., NeurIPS 2022, arXiv:2209.13575",
        "@inproceedings{wang2022efficient, title={Efficient Non-Parametric Optimizer Search for "
        "Diverse Tasks}, author={Wang, Ruochen and Xiong, Yuanhao and Cheng, Minhao and Hsieh, "
        "Cho-Jui}, booktitle={NeurIPS}, year={2022}}",
        "notebooks/02_optimizers.ipynb",
    ),
    "lstm_nodes": Entry(
        "jaxnas.recipes.lstm_nodes",
        "jaxnas/formulas/lstm_nodes.py",
        "Evolved recurrent nodes (GP-LSTM)",
        "Rawal & Miikkulainen, 2018, arXiv:1803.04439",
        "@article{rawal2018nodes, title={From Nodes to Networks: Evolving Recurrent Neural "
        "Networks}, author={Rawal, Aditya and Miikkulainen, Risto}, journal={arXiv preprint "
        "arXiv:1803.04439}, year={2018}}",
        "notebooks/03_recurrent_nodes.ipynb",
    ),
    "activations": Entry(
        "jaxnas.recipes.activations",
        "jaxnas/formulas/activations.py",
        "Activation functions as expressions",
        "Ramachandran et al., 2017, arXiv:1710.05941",
        "@article{ramachandran2017searching, title={Searching for Activation Functions}, "
        "author={Ramachandran, Prajit and Zoph, Barret and Le, Quoc V.}, journal={arXiv preprint "
        "arXiv:1710.05941}, year={2017}}",
    ),
    "llmatic": Entry(
        "jaxnas.recipes.llmatic",
        "jaxnas/programs/llmatic.py",
        "LLMatic, networks by a language model and two archives",
        "Nasir et al., GECCO 2024, arXiv:2306.01102",
        "@inproceedings{nasir2024llmatic, title={{LLMatic}: Neural Architecture Search via Large "
        "Language Models and Quality Diversity Optimization}, author={Nasir, Muhammad Umair and "
        "Earle, Sam and Cleghorn, Christopher and James, Steven and Togelius, Julian}, "
        "booktitle={GECCO}, year={2024}}",
        "notebooks/04_llm_search.ipynb",
    ),
    "evoprompting": Entry(
        "jaxnas.recipes.evoprompting",
        "jaxnas/programs/evoprompting.py",
        "EvoPrompting, evolution of programs by prompts",
        "Chen et al., NeurIPS 2023, arXiv:2302.14838",
        "@inproceedings{chen2023evoprompting, title={{EvoPrompting}: Language Models for "
        "Code-Level Neural Architecture Search}, author={Chen, Angelica and Dohan, David M. and "
        "So, David R.}, booktitle={NeurIPS}, year={2023}}",
        "notebooks/04_llm_search.ipynb",
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
