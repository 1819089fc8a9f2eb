"""Dreams 100 steps of car_racing over HTTP and writes a GIF. Needs no package, only a server:
`python -m wm_tf serve` or a TensorFlow Serving of the same models.
usage: python dream_over_http.py [http://127.0.0.1:8501] [dream.gif]"""

import itertools
import json
import struct
import sys
import urllib.request

SERVER, GIF = sys.argv[1:] + ["http://127.0.0.1:8501", "dream.gif"][len(sys.argv) - 1 :]
DITHER = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]  # sixteenths of a level
PALETTE = [min(64 * level, 255) for rgb in itertools.product(range(5), repeat=3) for level in rgb]


def ask(model, signature, **inputs):
    request = json.dumps({"signature_name": signature, "inputs": inputs}).encode()
    with urllib.request.urlopen(f"{SERVER}/v1/models/car_racing_{model}:predict", request) as reply:
        return json.load(reply)["outputs"]


def image(frame):  # each row begins with LZW's clear code, so that a pixel's code stays 8 bits long
    data = b"!\xf9\x04\0\x04\0\0\0," + struct.pack("<4H2B", 0, 0, 64, 64, 0, 7)
    for row, dither in zip(frame, itertools.cycle(DITHER)):
        pixels = zip(row, 16 * dither, strict=True)
        levels = [[int(4 * value + more / 16) for value in rgb] for rgb, more in pixels]
        data += bytes([65, 128, *(25 * red + 5 * green + blue for red, green, blue in levels)])
    return data + b"\x01\x81\0"


state = {"latent": [[0.0] * 32], "h": [[0.0] * 256], "c": [[0.0] * 256]}
with open(GIF, "wb") as file:
    file.write(b"GIF89a@\0@\0\xf6\0\0" + bytes(PALETTE) + bytes(9))  # 64 by 64, 128 colours
    file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")  # over and over again
    for step in range(100):
        file.write(image(ask("vision", "decode", latent=state["latent"])[0]))
        known = {**state, "action": ask("controller", "act", **state)}
        dreamt = ask("memory", "dream", **known, temperature=1.0, seed=[1, step])
        state = {name: dreamt[name] for name in state}
    file.write(b";")
