"""Search for neural architectures, optimizers, programs and prompts in JAX.

Everything that is searched speaks one small contract (`jaxnas.core`): a `Problem` measures
candidates, a `Searcher` proposes them, a `Search` runs. Rooms are named by what is searched,
files by the paper.
"""

__version__ = "0.1.0"
