"""The networks: V (`Vision`), M (`Memory`) and C (`Controller`), without files or environments."""

from wm_tf.runtime import settle_keras

settle_keras()  # before a module of the networks imports it

from wm_tf.models.controller import Controller  # noqa: E402
from wm_tf.models.memory import Memory, MemoryStep  # noqa: E402
from wm_tf.models.vision import Vision  # noqa: E402

__all__ = ["Controller", "Memory", "MemoryStep", "Vision"]
