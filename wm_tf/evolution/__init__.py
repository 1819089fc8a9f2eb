"""Training of the controller: CMA-ES with fitness in dream and reality, or policy gradients.

`train` is the loop around either of them: `evolution` over the `strategy`, or `policy_gradient`.
"""
