"""Searches that are killed, stopped and cut off, and what is left of them."""
