"""Loaders: rows from wherever they lie -> `Data` in three fixed, stratified splits."""
