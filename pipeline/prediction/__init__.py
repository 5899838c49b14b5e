"""Predictions of a finished model for a file of rows, in batches: a file may be larger than memory."""
