"""The dream: M's predictions played as an environment.

`world` holds the dream as functions of an explicit state, `envs` the gymnasium environments over
it (`rows` is what they have in common), `population` the compiled rollout of many controllers, and
`rollout` (of `differentiable`) the dream that gradients go through. Importing `world` or `envs`
does not import TensorFlow; loading models does, and so does asking for `rollout`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm_tf.dream.differentiable import rollout

__all__ = ["rollout"]


def __getattr__(name: str) -> Any:
    if name == "rollout":
        from wm_tf.dream.differentiable import rollout

        return rollout
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
