"""From trained Keras models to the SavedModels that others serve, and back.

`contract` names the signatures, `manifest` describes a folder, `export` writes it, `load` reads
it, `verify` checks it, `info` tells what is in it, `card` writes its model card and `lite` converts
its models to TFLite; `server` answers requests over HTTP, and `tensorflow_serving` writes what
TensorFlow Serving reads beside the SavedModels. Importing `contract`, `manifest`, `card` or `load`
does not import TensorFlow; calling `load.load` does.
"""
