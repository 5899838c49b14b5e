"""Question answering: a text and a question, each read by an LSTM of its own, lead to one of many answers."""

import keras

from pipeline.datasets import generated
from pipeline.metrics import CLASSIFICATION
from pipeline.settings import techniques
from pipeline.tasks import blocks
from pipeline.tasks.task import Task
from pipeline.values import Data, Settings

# Of each input the width of its word vectors and of its LSTM.
_READERS = {"text": (64, 32), "question": (32, 16)}


def build(settings: Settings, data: Data) -> keras.Model:
    """Embedding 64 - LSTM 32 of the text, Embedding 32 - LSTM 16 of the question, joined - softmax; RMSprop.

    BatchNormalization and Dropout on what is joined.
    """
    inputs, read = {}, []
    for name, (vector, units) in _READERS.items():
        inputs[name] = keras.Input((data.train.inputs[name].shape[1],), dtype="int32", name=name)
        vectors = keras.layers.Embedding(data.words[name], vector, name=f"{name}_vectors")(inputs[name])
        read.append(blocks.lstm(units, settings, name=f"{name}_reader")(vectors))
    joined = keras.layers.Concatenate()(read)
    last = [
        *blocks.batch_normalization(settings),
        blocks.dropout(settings),
        blocks.answer(len(data.classes), "softmax"),
    ]
    model = keras.Model(inputs, blocks.through(joined, last), name="question_answering")
    return blocks.compiled(model, settings)


TASK = Task(
    name="question_answering",
    parameters=techniques(optimizer="rmsprop"),
    metrics=CLASSIFICATION,
    load=generated.question_answering,
    build=build,
)
