"""What a saved model carries along to read its rows: each module is one file that runs without this project.

Training reads rows by the same functions, so that a model is asked with exactly what it has learned from.
`tracking/models.py` puts a form's file beside the model, and `tracking/served.py` loads it from there.
"""
