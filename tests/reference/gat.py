"""Graph attention as the paper's equations read: a matrix of nodes by nodes, head by head."""

import numpy as np


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def adjacency(edges, nodes):
    """Row `i` is true where a neighbour of node `i`, or `i` itself, sends to it."""
    matrix = np.eye(nodes, dtype=bool)
    for source, target in np.asarray(edges).T:
        matrix[target, source] = True
    return matrix


def attention_head(h, a_source, a_target, neighbours, slope):
    """Eqs. 1 to 4 for one head: projected features, both halves of `a`, the adjacency matrix."""
    out = np.zeros_like(h)
    for i in range(len(h)):
        near = np.flatnonzero(neighbours[i])
        scores = np.array([h[j] @ a_source + h[i] @ a_target for j in near])
        scores = np.where(scores > 0, scores, slope * scores)
        weights = np.exp(scores - scores.max())
        out[i] = (weights / weights.sum()) @ h[near]
    return out


def gat(params, features, edges, slope=0.2, residual=False):
    """Logits in evaluation mode, float64; `params` are those of the module."""
    x = np.asarray(features, np.float64)
    neighbours = adjacency(edges, len(x))
    for layer in range(len(params)):
        p = {k: np.asarray(v, np.float64) for k, v in params[f"layer_{layer}"].items()}
        heads, width = p["kernel_source"].shape
        outs = []
        for k in range(heads):
            h = x @ p["kernel"][:, k * width : (k + 1) * width]
            sides = p["kernel_source"][k], p["kernel_target"][k]
            outs.append(attention_head(h, *sides, neighbours, slope))
        last = layer == len(params) - 1
        y = (sum(outs) / heads if last else np.concatenate(outs, 1)) + p["bias"]
        if residual and layer > 0:
            y = y + (x if x.shape == y.shape else x @ p["kernel_residual"])
        x = y if last else elu(y)
    return x
