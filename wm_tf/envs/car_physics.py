"""CarRacing's car and contacts without NumPy scalars: the same numbers, bit for bit, sooner.

gymnasium computes the four wheels' forces with NumPy functions on single numbers and reads each
of Box2D's vectors several times through its wrapper. Here the same double precision operations
are done in the same order by plain Python. NumPy's sign, square and square root of a double
equal Python's, as IEEE 754 demands; Box2D itself computes in single precision either way.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from Box2D.b2 import contactListener
from gymnasium.envs.box2d.car_dynamics import (
    ENGINE_POWER,
    FRICTION_LIMIT,
    SIZE,
    WHEEL_MOMENT_OF_INERTIA,
    Car,
)

_GRASS_LIMIT = FRICTION_LIMIT * 0.6
_ROAD_LIMIT = max(_GRASS_LIMIT, FRICTION_LIMIT * 1.0)
_STIFFNESS_FACTOR = 205000  # of the tyre, times SIZE twice
_BRAKE_FORCE = 15  # radians per second


class FastCar(Car):
    """gymnasium's car; `step` gives the same state.

    Args:
      world: the Box2D world.
      angle, x, y: where the car starts (radians, world units).
      skids: keep the skid marks, which only gymnasium's own pictures for people show.
    """

    def __init__(self, world: Any, angle: float, x: float, y: float, skids: bool) -> None:
        super().__init__(world, angle, x, y)
        self._skids = skids

    def control(self, steer: float, gas: float, brake: float) -> None:
        """Sets the controls: steer in [-1, 1] (positive is left here), gas and brake in [0, 1]."""
        front_left, front_right, rear_left, rear_right = self.wheels
        front_left.steer = front_right.steer = steer
        for wheel in (rear_left, rear_right):
            difference = gas - wheel.gas
            wheel.gas += 0.1 if difference > 0.1 else difference
        for wheel in self.wheels:
            wheel.brake = brake

    def step(self, dt: float) -> None:
        """Turns the wheels and applies their forces for a step of `dt` seconds."""
        for wheel in self.wheels:
            joint = wheel.joint
            turn = wheel.steer - joint.angle
            speed = min(50.0 * abs(turn), 3.0)
            joint.motorSpeed = speed if turn > 0 else -speed if turn < 0 else 0.0
            self._push(wheel, dt)

    def _push(self, wheel: Any, dt: float) -> None:
        """Engine, brake and tyre of one wheel."""
        on_grass = not wheel.tiles
        limit = _GRASS_LIMIT if on_grass else _ROAD_LIMIT
        forward_x, forward_y = wheel.GetWorldVector((0, 1))
        side_x, side_y = forward_y, -forward_x
        velocity_x, velocity_y = wheel.linearVelocity
        forward_speed = forward_x * velocity_x + forward_y * velocity_y
        side_speed = side_x * velocity_x + side_y * velocity_y

        omega = _driven(wheel.omega, wheel.gas, wheel.brake, dt)
        self.fuel_spent += dt * ENGINE_POWER * wheel.gas
        wheel.phase += omega * dt

        forward_force = (-forward_speed + omega * wheel.wheel_rad) * (
            _STIFFNESS_FACTOR * SIZE * SIZE
        )
        side_force = -side_speed * (_STIFFNESS_FACTOR * SIZE * SIZE)
        force = sqrt(forward_force * forward_force + side_force * side_force)
        if self._skids:
            self._mark(wheel, force > 2.0 * limit, on_grass)
        if force > limit:
            forward_force = forward_force / force * limit
            side_force = side_force / force * limit
        wheel.omega = omega - dt * forward_force * wheel.wheel_rad / WHEEL_MOMENT_OF_INERTIA
        wheel.ApplyForceToCenter(
            (
                side_force * side_x + forward_force * forward_x,
                side_force * side_y + forward_force * forward_y,
            ),
            True,
        )

    def _mark(self, wheel: Any, skidding: bool, on_grass: bool) -> None:
        """Begins, continues or ends the wheel's skid mark."""
        if not skidding:
            wheel.skid_start = wheel.skid_particle = None
            return
        mark = wheel.skid_particle
        if mark and mark.grass == on_grass and len(mark.poly) < 30:
            mark.poly.append((wheel.position[0], wheel.position[1]))
        elif wheel.skid_start is None:
            wheel.skid_start = wheel.position
        else:
            wheel.skid_particle = self._create_particle(wheel.skid_start, wheel.position, on_grass)
            wheel.skid_start = None


def _driven(omega: float, gas: float, brake: float, dt: float) -> float:
    """A wheel's angular velocity (radians per second) after engine and brake."""
    omega += dt * ENGINE_POWER * gas / WHEEL_MOMENT_OF_INERTIA / (abs(omega) + 5.0)
    if brake >= 0.9:
        return 0.0
    if brake > 0:
        change = min(_BRAKE_FORCE * brake, abs(omega))
        omega += -change if omega > 0 else change if omega < 0 else 0.0
    return omega


class TileContacts(contactListener):
    """Tells the environment which tiles the car touches.

    A wheel's `tiles` are those under it, as in gymnasium; the environment hears of a tile that
    anything of the car touches or leaves (`tile_touched`) and of one that a wheel reaches
    (`tile_reached`).
    """

    def __init__(self, env: Any) -> None:
        super().__init__()
        self._env = env

    def BeginContact(self, contact: Any) -> None:
        self._contact(contact, True)

    def EndContact(self, contact: Any) -> None:
        self._contact(contact, False)

    def _contact(self, contact: Any, begin: bool) -> None:
        tile = contact.fixtureA.body.userData
        other = contact.fixtureB.body.userData
        if tile is None or "idx" not in tile.__dict__:
            tile, other = other, tile
        if tile is None or "idx" not in tile.__dict__:
            return
        self._env.tile_touched(tile)
        if other is None or "tiles" not in other.__dict__:
            return
        if begin:
            other.tiles.add(tile)
            if not tile.road_visited:
                self._env.tile_reached(tile)
        else:
            other.tiles.remove(tile)
