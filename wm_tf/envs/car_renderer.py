"""CarRacing's picture, 64x64, drawn in a fraction of a millisecond.

gymnasium draws every polygon in Python on a window of 1000x800 pixels and averages that to 96x96.
Here the track's vertices are one array: those in view are transformed by one expression and
filled by OpenCV into a canvas of a few pixels per pixel of the 96x84 view (the part above the
indicators), which is then averaged by the same two box filters: to 96x84, then to 64x64.

Lengths are world units; `zoom` is pixels of gymnasium's window per world unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from gymnasium.envs.box2d import car_dynamics as dynamics
from gymnasium.envs.box2d.car_racing import (
    GRASS_DIM,
    PLAYFIELD,
    STATE_H,
    STATE_W,
    WINDOW_H,
    WINDOW_W,
)

from wm_tf.config import FRAME_SIZE

ROWS = 84
"""The rows of the official 96x96 observation that are above the indicators."""

_OVERSAMPLING = 2  # canvas pixels per pixel of the 96x84 view, a power of two
_WIDTH, _HEIGHT = STATE_W * _OVERSAMPLING, ROWS * _OVERSAMPLING
_SCALE_X = _WIDTH / WINDOW_W  # canvas pixels per window pixel
_SCALE_Y = STATE_H * _OVERSAMPLING / WINDOW_H
_SHIFT = 4  # fractional bits of the vertices that OpenCV is given
_UNIT = 1 << _SHIFT
_CAR_X, _CAR_Y = WINDOW_W / 2, WINDOW_H / 4  # the hull in the window, y upwards
_VIEW_X, _VIEW_Y = WINDOW_W, WINDOW_H * ROWS / STATE_H  # window pixels in view
_VIEW_AHEAD = WINDOW_H - _VIEW_Y / 2 - _CAR_Y  # from the hull to the middle of the view
# From window pixels to OpenCV's vertices; y runs downwards and a pixel's middle is a whole number.
_CANVAS_SCALE = _UNIT * np.array([_SCALE_X, -_SCALE_Y])
_MIDDLE = _UNIT / 2 * np.array([_WIDTH, _HEIGHT])
_CAR = _UNIT * np.array([_CAR_X * _SCALE_X - 0.5, (WINDOW_H - _CAR_Y) * _SCALE_Y - 0.5])

# OpenCV fills half a canvas pixel beyond a polygon's edge, gymnasium's drawing about one window
# pixel: edges are moved inwards by the difference, in window pixels.
_INSET = 0.5 / math.sqrt(_SCALE_X * _SCALE_Y) - 0.6
_INSET_CAR = 0.5 / math.sqrt(_SCALE_X * _SCALE_Y) - 0.3
_ROUNDING = 2  # pygame's smoothscale loses as much of every channel

Color = tuple[int, int, int]
RGB = Sequence[float] | np.ndarray


def resize_official(observation: np.ndarray) -> np.ndarray:
    """The frame of an official observation: uint8 [96, 96, 3] -> [64, 64, 3]."""
    return _shrink(observation[:ROWS], FRAME_SIZE, FRAME_SIZE)


def _shrink(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """Averages a picture to a smaller size (a box filter)."""
    smaller: np.ndarray = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return smaller


def _rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _grass_squares() -> np.ndarray:
    square = _rectangle(0, 1, 1, 0)
    corners = [(x, y) for x in range(-20, 20, 2) for y in range(-20, 20, 2)]
    return GRASS_DIM * (np.array(corners)[:, None] + square)  # [400, 4, 2]


_GRASS = _grass_squares()
_FIELD = _rectangle(-PLAYFIELD, PLAYFIELD, PLAYFIELD, -PLAYFIELD)


class Renderer:
    """Draws one track.

    Args:
      road: gymnasium's `road_poly`, the tiles and kerbs in the order of drawing: pairs of four
        vertices and a colour.
      background, grass: colours of the playfield and of the squares on it.
    """

    def __init__(self, road: Sequence[tuple[Any, Any]], background: RGB, grass: RGB) -> None:
        polygons = np.array([vertices for vertices, _ in road], np.float64)
        self._vertices = np.concatenate([_GRASS, polygons])  # [P, 4, 2]
        self._inwards = np.concatenate([_inwards(_GRASS), _inwards_across(polygons)])
        centers = self._vertices.mean(axis=1, keepdims=True)
        self._centers = centers[:, 0].T.copy()  # [2, P]
        self._radius = np.linalg.norm(self._vertices - centers, axis=-1).max(axis=1)  # [P]
        self._colors = [_color(grass)] * len(_GRASS) + [_color(color) for _, color in road]
        self._background = _color(background)
        self._meadow = np.full((_HEIGHT, _WIDTH, 3), self._background, np.uint8)
        self._canvas = np.empty_like(self._meadow)
        self._zoom = 0.0

    def paint(self, polygon: int, color: RGB) -> None:
        """Changes the colour of a polygon of `road`."""
        self._colors[len(_GRASS) + polygon] = _color(color)

    def frame(
        self,
        position: tuple[float, float],
        angle: float,
        zoom: float,
        wheels: Sequence[tuple[float, float]],
    ) -> np.ndarray:
        """The frame, uint8 [64, 64, 3].

        Args:
          position, angle: of the hull, which the camera follows.
          zoom: window pixels per world unit.
          wheels: each wheel's angle relative to the hull and its phase, in radians.
        """
        if zoom != self._zoom:
            self._set_zoom(zoom)
        self._draw_ground(position, angle)
        self._draw_car(wheels)
        picture = self._canvas
        while picture.shape[0] > ROWS:  # halving is the one ratio that OpenCV does quickly
            picture = _shrink(picture, picture.shape[1] // 2, picture.shape[0] // 2)
        return _shrink(picture, FRAME_SIZE, FRAME_SIZE)

    def _set_zoom(self, zoom: float) -> None:
        """Prepares what depends on the zoom alone, which is constant after the first second."""
        self._zoom = zoom
        self._edges = self._vertices + self._inwards * (_INSET / zoom)
        self._view_radius = math.hypot(_VIEW_X, _VIEW_Y) / 2 / zoom
        # The camera turns with the hull, so that the car is always drawn at the same place.
        self._scale = _CANVAS_SCALE * zoom
        # How far from the canvas' middle a polygon's centre may be for it to be seen, [2, P].
        self._reach = _MIDDLE[:, None] + np.abs(self._scale)[:, None] * self._radius
        inset = _INSET_CAR / zoom
        self._hull = [
            _points((polygon + inwards * inset) * self._scale + _CAR) for polygon, inwards in _HULL
        ]

    def _draw_ground(self, position: tuple[float, float], angle: float) -> None:
        canvas, colors = self._canvas, self._colors
        x, y = position
        cos, sin = math.cos(angle), math.sin(angle)
        # canvas = R(-angle) (world - position) scale + car
        matrix = np.array([[cos, -sin], [sin, cos]]) * self._scale
        offset = _CAR - np.array([x, y]) @ matrix

        ahead = _VIEW_AHEAD / self._zoom
        middle_x, middle_y = x - sin * ahead, y + cos * ahead
        if max(abs(middle_x), abs(middle_y)) + self._view_radius < PLAYFIELD:
            np.copyto(canvas, self._meadow)
        else:
            canvas.fill(0)
            field = _points(_FIELD @ matrix + offset)
            cv2.fillConvexPoly(canvas, field, self._background, cv2.LINE_8, _SHIFT)

        from_middle = matrix.T @ self._centers + (offset - _MIDDLE)[:, None]  # [2, P]
        near_x, near_y = np.abs(from_middle) < self._reach
        visible = np.flatnonzero(near_x & near_y)
        points = _points(self._edges[visible] @ matrix + offset)
        for index, polygon in zip(visible.tolist(), points, strict=True):
            cv2.fillConvexPoly(canvas, polygon, colors[index], cv2.LINE_8, _SHIFT)

    def _draw_car(self, wheels: Sequence[tuple[float, float]]) -> None:
        canvas = self._canvas
        polygons, colors = [], []
        inset = _INSET_CAR / self._zoom
        for (x, y), (angle, phase) in zip(dynamics.WHEELPOS, wheels, strict=True):
            polygons.append(_wheel(x, y, angle, (1.0, -1.0), inset))
            colors.append(_WHEEL_COLOR)
            stripe = _stripe(phase)
            if stripe:
                polygons.append(_wheel(x, y, angle, stripe, inset))
                colors.append(_STRIPE_COLOR)
        points = _points(np.array(polygons) * self._scale + _CAR)
        for polygon, color in zip(points, colors, strict=True):
            cv2.fillConvexPoly(canvas, polygon, color, cv2.LINE_8, _SHIFT)
        for polygon in self._hull:
            cv2.fillConvexPoly(canvas, polygon, _HULL_COLOR, cv2.LINE_8, _SHIFT)


def _points(pixels: np.ndarray) -> np.ndarray:
    """Canvas pixels times `_UNIT` as OpenCV takes them."""
    return np.rint(pixels).astype(np.int32)


def _wheel(
    x: float, y: float, angle: float, stripe: tuple[float, float], inset: float
) -> list[tuple[float, float]]:
    """The corners of a wheel's part between two fractions of its radius, relative to the hull.

    Args:
      x, y: the wheel on the hull, in gymnasium's units of the car.
      angle: of the wheel relative to the hull.
      stripe: the part's ends along the wheel, 1 in front, -1 behind.
      inset: by how much its edges move inwards, in world units.
    """
    x, y = x * dynamics.SIZE, y * dynamics.SIZE
    radius = dynamics.WHEEL_R * dynamics.SIZE
    half = dynamics.WHEEL_W * dynamics.SIZE - inset
    middle = radius * (stripe[0] + stripe[1]) / 2
    length = max(radius * abs(stripe[0] - stripe[1]) / 2 - inset, 0.0)
    cos, sin = math.cos(angle), math.sin(angle)
    return [
        (x + across * cos - along * sin, y + across * sin + along * cos)
        for across, along in (
            (-half, middle + length),
            (half, middle + length),
            (half, middle - length),
            (-half, middle - length),
        )
    ]


def _stripe(phase: float) -> tuple[float, float] | None:
    """The ends of a wheel's light stripe in fractions of its radius, if it is in sight."""
    s1, s2 = math.sin(phase), math.sin(phase + 1.2)
    c1, c2 = math.cos(phase), math.cos(phase + 1.2)
    if s1 > 0 and s2 > 0:
        return None
    if s1 > 0:
        c1 = math.copysign(1.0, c1)
    if s2 > 0:
        c2 = math.copysign(1.0, c2)
    return c1, c2


def _inwards(polygons: np.ndarray) -> np.ndarray:
    """How each vertex moves when a convex polygon's edges move inwards by one: [P, V, 2]."""
    following = np.roll(polygons, -1, axis=1) - polygons
    following /= np.linalg.norm(following, axis=-1, keepdims=True)
    previous = np.roll(following, 1, axis=1)
    cross = previous[..., 0] * following[..., 1] - previous[..., 1] * following[..., 0]
    # The corner moves along both edges by as much as the other edge's shift demands.
    return (following - previous) / np.abs(cross)[..., None]


def _inwards_across(road: np.ndarray) -> np.ndarray:
    """As `_inwards`, but only across the road: along it the polygons follow without a gap."""
    across = road[:, [1, 0, 3, 2]] - road  # to the other side, [P, 4, 2]
    width = np.linalg.norm(across, axis=-1, keepdims=True)
    return across / np.maximum(width, 1e-9)  # a kerb where the road is straight has no width


def _color(color: RGB) -> Color:
    """A colour as it is after gymnasium's scaling."""
    red, green, blue = (max(int(channel) - _ROUNDING, 0) for channel in color)
    return red, green, blue


_WHEEL_COLOR = _color(dynamics.WHEEL_COLOR)
_STRIPE_COLOR = _color(dynamics.WHEEL_WHITE)
_HULL_COLOR = _color((204, 0, 0))
_HULL = [
    (polygon, _inwards(polygon[None])[0])
    for polygon in (
        dynamics.SIZE * np.array(vertices, np.float64)
        for vertices in (
            dynamics.HULL_POLY1,
            dynamics.HULL_POLY2,
            dynamics.HULL_POLY3,
            dynamics.HULL_POLY4,
        )
    )
]
