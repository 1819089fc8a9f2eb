"""The dream player: a window in which a person drives inside the network's dream.

Four kinds of modules, which know each other in this order only:

* pure, no pygame: `world` (one dream over the SavedModels), `real` (the real environment beside
  it), `driving` (hands and controller make an action), `stepping`, `history`, `futures`,
  `recording`, `commands` (the key table) and `session` (everything that a key can do to a dream).
* `devices`: keyboard and gamepads become semantic commands.
* `view`: draws a session.
* `app`: the loop; `pacing`, `loading`, `keeping`, `media`, and `options` and `play` around it.
"""
