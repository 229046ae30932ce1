"""Networks as Flax source: written by a language model, judged without trusting it."""
