"""Gradient searches over a supernet that holds every cell at once."""
