"""Jobs that worker processes of the tests can import, and running one."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from cnnsweep.executors.base import Event, Executor, Job

_kept: list[bytearray] = []


def count(upto: int) -> Generator[int, bool, str]:
    for number in range(1, upto + 1):
        if not (yield number):
            return f"stopped at {number}"
    return f"counted to {upto}"


def instant(value: Any) -> Generator[None, bool, Any]:
    return value
    yield


def fail(error: BaseException) -> Generator[str, bool, None]:
    yield "before"
    raise error


def report_a_function(_: Any) -> Generator[Any, bool, None]:
    yield lambda: None


def call(function: Callable[[], Any]) -> Generator[None, bool, Any]:
    return function()
    yield


def die_leaving_a_child(_: Any) -> Generator[None, bool, None]:
    """The child holds this process' pipe to the driver open."""
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    signal.raise_signal(signal.SIGKILL)
    yield


def use_helpers(method: str) -> Generator[None, bool, set[int | None]]:
    """The end codes of a program, and of children, that are terminated as soon as they are started."""
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    ends: set[int | None] = {program.wait(10)}
    for _ in range(30 if method == "fork" else 1):
        child = multiprocessing.get_context(method).Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join(10)
        ends.add(child.exitcode)
    return ends
    yield


def keep(size: int) -> Generator[None, bool, int]:
    """Memory that the process does not give back."""
    _kept.append(bytearray(os.urandom(1024)) * (size // 1024))
    return os.getpid()
    yield


def change_keras(_: Any) -> Generator[None, bool, tuple[Any, ...]]:
    """Changes Keras' global settings as keras.json can, or a job; returns those that were there."""
    from keras import config

    found = config.image_data_format(), config.floatx(), config.epsilon(), config.dtype_policy().name
    found = (*found, config.max_steps_per_epoch())
    config.set_image_data_format("channels_first")
    config.set_floatx("float16")
    config.set_epsilon(0.1)
    config.set_dtype_policy("mixed_float16")
    config.set_max_steps_per_epoch(1)
    return found
    yield


def sleep(seconds: float) -> Generator[int, bool, None]:
    yield os.getpid()
    time.sleep(seconds)


def shout(_: Any) -> Generator[None, bool, None]:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    subprocess.run(["echo", "from a child"], check=True)
    os.write(2, b"past Python\n")
    return
    yield


def surroundings(_: Any) -> Generator[None, bool, Mapping[str, Any]]:
    import keras
    import tensorflow as tf

    keras.ops.add(1, 1)
    return {
        "environment": dict(os.environ),
        "keras": keras.backend.backend(),
        "intra": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter": tf.config.threading.get_inter_op_parallelism_threads(),
        "survives": [signal.raise_signal(s) is None for s in (signal.SIGINT, signal.SIGTERM)],
        "main": threading.current_thread() is threading.main_thread(),
    }
    yield


def use_keras_extras(_: Any) -> Generator[None, bool, tuple[list[str], bool, bool]]:
    """The libraries that are loaded before they are used, and that both uses work."""
    import keras
    import numpy as np

    loaded = [name for name in ("scipy.stats", "sklearn") if name in sys.modules]
    images = np.zeros((1, 8, 8, 1), "float32")
    keras.visualization.plot_image_gallery(images, value_range=(0, 255), path=(drawn := io.BytesIO()))
    return loaded, hasattr(keras.wrappers.SKLearnClassifier, "get_params"), len(drawn.getvalue()) > 0
    yield


def train(epochs: int) -> Generator[float, bool, int]:
    import keras
    import numpy as np

    images = np.random.default_rng(0).random((64, 8, 8, 1), "float32")
    labels = (images.mean((1, 2, 3)) > 0.5).astype("int32")
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    for _ in range(epochs):
        yield float(model.fit(images, labels, verbose=0).history["loss"][0])
    return os.getpid()


def run(executor: Executor, job: Job, argument: Any, answers: Sequence[bool] = ()) -> list[Event]:
    """Run a job on the first worker; reports beyond the given answers are answered with True."""
    executor.submit(executor.workers[0], job, argument)
    events: list[Event] = []
    replies = iter(answers)
    while not events or events[-1].kind == "report":
        event = executor.wait(60)
        assert event is not None
        event.answer(next(replies, True))
        events.append(event)
    return events


def values(events: Sequence[Event]) -> list[Any]:
    return [event.value for event in events]
