"""The dream player: a window in which a person drives inside the network's dream.

Four kinds of modules, which know each other in this order only:

* pure, no pygame: `world` (one dream over the SavedModels; `compiled` makes a step one call),
  `real` and `beside` (the real environment beside it), `driving` (hands and controller make an
  action), `stepping`, `history`, `futures`, `script`, `recording`, `scales`, `commands` (the key
  table), `verbs` (what each key does) and `session` (a dream and everything that can be done to
  it); `choice` and `starts` (what it begins with).
* `devices`, `keys` and `gamepads`: keyboard and gamepads become semantic commands.
* `view`: draws a session and the title screen.
* `app`: the loop; `foyer` (the title screen), `mouse`, `window`, `pacing`, `loading`, `keeping`,
  `media`, and `options` and `play` around it.
"""
