"""Ready rows of the map file for common senders; {limb} is where the device is worn.

Signs: an accelerometer counts 1 upwards at rest, in g. iPhones count it downwards (scale -1), Android in m/s^2.
"""

from typing import Any

LIMB = "r_hand"  # unless the preset's table says another
_ANDROID = round(1.0 / 9.80665, 6)  # m/s^2 to g
_FIVE = ("density", "range", "dissonance", "bass_gain", "stability")
# MediaPipe's landmarks: ear stands for the head (both at once would need a mean), the foot's index for the toes.
_LANDMARKS = {7: "head"} | {
    index + side: f"{letter}_{part}" for index, part in
    ((11, "up_arm"), (13, "low_arm"), (15, "hand"), (23, "up_leg"), (25, "low_leg"), (27, "foot"), (31, "toes"))
    for side, letter in enumerate("lr")}


def _imu(address: str, component: str, scale: float = 1.0) -> dict[str, Any]:
    row: dict[str, Any] = {"address": address, "argument": 0, "to": f"limb.{{limb}}.{component}"}
    return row | {"scale": scale} if scale != 1.0 else row


def _values(address: str) -> list[dict[str, Any]]:
    return [{"address": address, "argument": i, "to": name, "smooth": {"min_cutoff": 2.0, "beta": 0.05}}
            for i, name in enumerate(_FIVE)]


def _pose(first: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for index, limb in sorted(_LANDMARKS.items()):
        at = first + 4 * index  # x to the right and y down, in parts of the picture's sides, z away from the camera
        rows += [{"address": "/mediapipe/pose", "argument": at, "to": f"limb.{limb}.position",
                  "scale": [1.333, -1.0, -1.333]},
                 {"address": "/mediapipe/pose", "argument": at + 3, "to": f"limb.{limb}.confidence"}]
    return rows


PRESETS: dict[str, list[dict[str, Any]]] = {
    "zigsim": [_imu("/*/accel", "accel", -1.0), _imu("/*/gravity", "gravity", -1.0), _imu("/*/gyro", "gyro"),
               _imu("/*/quaternion", "quaternion")],
    "gyrosc": [_imu("/gyrosc/accel", "accel", -1.0), _imu("/gyrosc/grav", "gravity", -1.0),
               _imu("/gyrosc/rrate", "gyro")],
    "touchosc": [_imu("/accxyz", "accel", -1.0),
                 *({"address": f"/1/fader{i}", "argument": 0, "to": name} for i, name in enumerate(_FIVE, 1))],
    "sensors2osc": [_imu("/acceleration", "accel", _ANDROID)],
    "oschook": [_imu(f"/accelerometer/raw/{axis}", f"accel.{axis}", _ANDROID) for axis in "xyz"],
    "wek_inputs": _values("/wek/inputs"),
    "wek_outputs": _values("/wek/outputs"),
    "mediapipe": _pose(1),  # the first argument says whether anybody is seen
    "mediapipe_flat": _pose(0),  # without it
}
