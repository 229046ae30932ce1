"""Fine-tuning a BERT on one task of GLUE, as in Wang et al., arXiv:2209.13575, section 3.3.6.

Batches of 32, lengths of 128, a rate that falls linearly to zero, 3 epochs of CoLA and RTE and 5 of
MRPC, WNLI and STS-B; the score is the task's own on its development set. The paper fine-tunes
BERT-base; whichever BERT `train.pretrained.load_bert` finds is taken. Rates
are chosen with one seed, the score is the mean of four.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from jaxnas.data.bert_files import read_vocabulary
from jaxnas.data.glue import GlueTask, Sentences, glue
from jaxnas.data.wordpiece import WordPiece, encode
from jaxnas.formulas.training import Task
from jaxnas.nn.bert import BertClassifier, BertConfig, fine_tuned
from jaxnas.nn.network import cross_entropy
from jaxnas.train import metrics
from jaxnas.train.batches import epoch_orders
from jaxnas.train.pretrained import load_bert

RATES = (2e-5, 1e-4, 6e-4, 1e-3, 3e-3, 6e-3, 0.01, 0.03, 0.06, 1.0)
EPOCHS = {"cola": 3, "rte": 3, "mrpc": 5, "wnli": 5, "stsb": 5}
SCORES = {
    "matthews": metrics.matthews,
    "accuracy": metrics.accuracy,
    "spearman": metrics.spearman,
}


def finetuning(
    name: str,
    *,
    length: int = 128,
    batch: int = 32,
    steps: int = 0,
    examples: int = 0,
    blocks: int = 0,
    data: GlueTask | None = None,
    bert: tuple[BertConfig, PyTree, WordPiece] | None = None,
) -> Task:
    """A task of GLUE.

    Args:
      name: `cola`, `rte`, `mrpc`, `wnli` or `stsb`.
      length: word pieces of an input, longer ones are cut; where all are shorter they are padded to
        the longest alone.
      batch: examples a step.
      steps: of training; 0 for the paper's epochs.
      examples: only the first ones of the training and of the development set; 0 for all.
      blocks: of the encoder that are trained, the last ones, beside pooler and head; 0 for all of
        it with its embeddings.
      data: the task; `None` loads it.
      bert: sizes, weights and vocabulary; `None` loads what there is.

    Raises:
      DataError: if data or weights are absent.
      ValueError: for more blocks than there are.
    """
    data = glue(name) if data is None else data
    if bert is None:
        bert = (*load_bert(), read_vocabulary())
    config, params, _ = bert
    if not 0 <= blocks <= config.layers:
        raise ValueError(f"`blocks` must be in 0 ... {config.layers}, but got {blocks}.")
    (x, y), (dev_x, dev_y) = (_arrays(bert, s, length, examples) for s in (data.train, data.dev))
    outputs = len(data.classes) or 1
    network = fine_tuned(BertClassifier(config, outputs), params)
    score = SCORES[data.metric]
    count = steps or EPOCHS[name] * (len(y) // batch)
    held = _below(config, params["encoder"], blocks)

    def start(key: Key[Array, ""]) -> tuple[Any, Any]:
        params = network.init(key, x[:1])["params"]
        trained = {name: w for name, w in params["encoder"].items() if name not in held}
        return params | {"encoder": trained}, ()

    def answer(params: Any, x: Array, train: bool, *rngs: Any) -> Array:
        whole = {**params, "encoder": held | params["encoder"]}
        return network.apply({"params": whole}, x, train, *rngs)[0]

    def loss(params: Any, memory: Any, item: Array, key: Key[Array, ""]) -> tuple[Array, Any]:
        out = answer(params, x[item], True, {"dropout": key})
        if data.classes:
            return cross_entropy(out, y[item]), memory
        return jnp.square(out[:, 0] - y[item]).mean(), memory

    def judge(losses: Array, params: Any, memory: Any) -> Array:
        del losses, memory
        out = _answers(lambda rows: answer(params, rows, False), dev_x, batch)
        return score(out.argmax(1) if data.classes else out[:, 0], dev_y)

    return Task(
        name=f"glue_{name}",
        start=start,
        feed=lambda key: epoch_orders(key, len(y), min(batch, len(y)), count),
        loss=loss,
        score=judge,
        steps=count,
        rates=RATES,
        seeds=4,
        bound=0.2 if data.metric == "accuracy" else 0.0,
        space="gnn",
        label=f"{data.metric} on the development set",
        schedule=lambda t: 1 - (t - 1) / count,
        side_by_side=False,
    )


def _below(config: BertConfig, encoder: PyTree, blocks: int) -> dict[str, PyTree]:
    """What of an encoder stays as it is: all but its last blocks, or nothing."""
    last = {f"layer_{n}" for n in range(config.layers - blocks, config.layers)}
    return {name: w for name, w in encoder.items() if blocks and name not in last}


def _arrays(
    bert: tuple[BertConfig, PyTree, WordPiece], said: Sentences, length: int, examples: int
) -> tuple[Array, Array]:
    config, _, words = bert
    some = slice(examples or None)
    x = encode(words, said.first[some], said.second[some], length=length)
    longest = int((x[:, 0] != config.pad).any(0).sum())
    return jnp.asarray(x[:, :, : max(longest, 1)]), jnp.asarray(said.labels[some])


def _answers(network: Any, x: Array, batch: int) -> Array:
    """The network's outputs on all rows, a batch at a time."""
    rows = -(-len(x) // batch) * batch
    padded = jnp.concatenate([x, jnp.broadcast_to(x[:1], (rows - len(x), *x.shape[1:]))])
    out = jax.lax.map(network, padded.reshape(-1, batch, *x.shape[1:]))
    return out.reshape(rows, -1)[: len(x)]
