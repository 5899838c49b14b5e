"""The lanes' tests need Keras on JAX, which is settled once a process.

So `tests/test_lanes.py` runs each file in a process of its own, and the files `test_float64*.py` in one whose
numbers all have 64 bits.

By hand: `KERAS_BACKEND=jax JAX_NUM_CPU_DEVICES=2 python -m pytest tests/lanes`, and the same with
`JAX_ENABLE_X64=1` for the others.
"""

import os

_WIDE = os.environ.get("JAX_ENABLE_X64") == "1"
collect_ignore_glob: list[str] = []
if os.environ["KERAS_BACKEND"] != "jax":
    collect_ignore_glob = ["test_*.py"]
else:
    from pathlib import Path

    from pipeline.engines import backend

    backend.load()

    import keras

    if _WIDE:
        from keras.src.backend.common import dtypes

        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        # On JAX, Keras counts 64 bits as 32 wherever it finds a common type, and so a BatchNormalization of
        # float64 would calculate in float32.
        dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
        collect_ignore_glob = [
            file.name for file in Path(__file__).parent.glob("test_*.py") if "float64" not in file.name
        ]
    else:
        collect_ignore_glob = ["test_float64*.py"]
