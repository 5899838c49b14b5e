"""Lanes against `model.fit`: the same models on the same rows, each backend in a process of its own."""
