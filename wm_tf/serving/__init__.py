"""From trained Keras models to the SavedModels that others serve, and back.

`contract` names the signatures, `manifest` describes a folder, `export` writes it, `load` reads
it, `verify` checks it and `card` writes its model card. Importing `contract`, `manifest`, `card`
or `load` does not import TensorFlow; calling `load.load` does.
"""
