"""Training of the controller in dream and reality: CMA-ES, or policy gradients.

`train` is the loop around each of them: `evolution` over the `strategy`, `dream_gradient` or
`real_gradient`, which share `ppo`.
"""
