"""The dream: M's predictions played as an environment.

`world` holds the dream as functions of an explicit state, `envs` the gymnasium environments over
it (`rows` is what they have in common), `population` the compiled rollout of many controllers.
Importing `world` or `envs` does not import TensorFlow; loading models does.
"""
