"""World Models (Ha & Schmidhuber, arXiv 1803.10122) in TensorFlow/Keras.

Importing the package is cheap (no TensorFlow, no pygame) and registers four gymnasium
environments: wm_tf/CarRacing-v0, wm_tf/CarRacingDream-v0, wm_tf/TakeCover-v0 and
wm_tf/TakeCoverDream-v0.
"""

from wm_tf.envs import register

register()
