"""Optimisers as PyTorch documents them, on one numpy array and one number at a time."""

import math

import numpy as np


class Sgd:
    """Clip by global norm, then L2, then momentum (Nesterov or not)."""

    def __init__(self, *, momentum, weight_decay, clip=0.0, nesterov=False):
        self.momentum, self.weight_decay, self.clip = momentum, weight_decay, clip
        self.nesterov, self.buffers = nesterov, None

    def step(self, params, gradients, rate):
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        factor = min(1.0, self.clip / (norm + 1e-6)) if self.clip else 1.0
        if self.buffers is None:
            self.buffers = [np.zeros_like(p) for p in params]
        moved = []
        for i, (p, g) in enumerate(zip(params, gradients, strict=True)):
            slope = factor * g + self.weight_decay * p
            self.buffers[i] = self.momentum * self.buffers[i] + slope
            way = slope + self.momentum * self.buffers[i] if self.nesterov else self.buffers[i]
            moved.append(p - rate * way)
        return moved


class Adam:
    """`torch.optim.Adam` with `weight_decay` (L2 in the gradient, not decoupled)."""

    def __init__(self, *, rate, betas, weight_decay, epsilon=1e-8):
        self.rate, self.betas, self.weight_decay = rate, betas, weight_decay
        self.epsilon, self.first, self.second, self.steps = epsilon, 0.0, 0.0, 0

    def step(self, value, gradient):
        self.steps += 1
        gradient = gradient + self.weight_decay * value
        b1, b2 = self.betas
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * gradient**2
        mean = self.first / (1 - b1**self.steps)
        root = np.sqrt(self.second / (1 - b2**self.steps)) + self.epsilon
        return value - self.rate * mean / root


def cosine(first, last, done):
    """From `first` to `last` by half a period."""
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2


def linear_loss(x, y, kernel, bias):
    """Mean cross-entropy of a linear classifier, and its gradients, example by example."""
    loss, by_kernel, by_bias = 0.0, np.zeros_like(kernel), np.zeros_like(bias)
    for row, label in zip(x, y, strict=True):
        logits = row @ kernel + bias
        share = np.exp(logits - logits.max())
        share /= share.sum()
        loss -= math.log(share[label]) / len(x)
        share[label] -= 1
        by_kernel += np.outer(row, share) / len(x)
        by_bias += share / len(x)
    return loss, [by_kernel, by_bias]
