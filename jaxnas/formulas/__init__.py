"""Expression trees: optimizers, recurrent nodes and activations, on one tape."""
