"""The dream player: a window in which a person drives inside the network's dream.

Four kinds of modules, which know each other in this order only:

* pure, no pygame: `world` (one dream over the SavedModels), `driving` (hands and controller make an
  action), `history`, `session` (everything a key can do to a dream), `commands` (the key table),
  `recording`.
* `devices`: keyboard and gamepads become semantic commands.
* `view`: draws a session.
* `app`: the loop; `loading`, `media` and `options` around it.
"""
