"""Lanes: trials side by side in one compiled program, each an ordinary Keras model with its own numbers."""
