"""The networks: V (`Vision`), M (`Memory`) and C (`Controller`), without files or environments."""

from wm_tf.models.controller import Controller
from wm_tf.models.memory import Memory, MemoryStep
from wm_tf.models.vision import Vision

__all__ = ["Controller", "Memory", "MemoryStep", "Vision"]
