"""sRGB <-> CIE L*a*b* of 8-bit pictures in OpenCV's integer arithmetic (D65; L scaled to 255, a and b moved by 128).

The tables and constants are those that define OpenCV's COLOR_RGB2LAB and COLOR_LAB2RGB; results agree with it for
every one of the 2^24 colours.
"""

from __future__ import annotations

import functools

import numpy as np

WHITE = np.array([0.950456, 1.0, 1.088754])
TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
FROM_XYZ = np.array([[3.240479, -1.53715, -0.498535], [-0.969256, 1.875991, 0.041556], [0.055648, -0.204043, 1.057311]])
MATRIX_BITS, GAMMA_BITS, BASE_BITS, INVERSE_BITS = 12, 3, 14, 12
BASE = 1 << BASE_BITS
ROOT_BITS = MATRIX_BITS + GAMMA_BITS
LOWEST = -8145  # the smallest fx or fz, in BASE-ths


def rgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] -> uint8 [h, w, 3]."""
    linear, root = _forward_tables()
    matrix = np.rint(TO_XYZ / WHITE[:, None] * (1 << MATRIX_BITS)).astype(np.int64)
    fx, fy, fz = np.moveaxis(root[_shifted(linear[rgb] @ matrix.T, MATRIX_BITS)], -1, 0)
    middle = 128 << ROOT_BITS
    lightness = _shifted(296 * fy - (16 * 255 * (1 << ROOT_BITS) + 50) // 100, ROOT_BITS)
    a = _shifted(500 * (fx - fy) + middle, ROOT_BITS)
    b = _shifted(200 * (fy - fz) + middle, ROOT_BITS)
    return np.stack([lightness, a, b], axis=-1).clip(0, 255).astype(np.uint8)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] -> uint8 [h, w, 3]."""
    heights, roots, cubes, gamma = _backward_tables()
    lightness, a, b = (lab[..., i].astype(np.int64) for i in range(3))
    y, fy = heights[lightness], roots[lightness]
    fx = fy + ((5 * a * 53687 + (1 << 7)) >> 13) - 128 * BASE // 500
    fz = fy - (((b * 41943 + (1 << 4)) >> 9) - 128 * BASE // 200 + 1)
    xyz = np.stack([cubes[fx - LOWEST], y, cubes[fz - LOWEST]], axis=-1)
    matrix = np.rint(FROM_XYZ * WHITE * (1 << MATRIX_BITS)).astype(np.int64)
    linear = _shifted(xyz @ matrix.T, MATRIX_BITS + BASE_BITS - INVERSE_BITS)
    return gamma[linear.clip(0, (1 << INVERSE_BITS) - 1)]


def _shifted(value: np.ndarray, bits: int) -> np.ndarray:
    return (value + (1 << (bits - 1))) >> bits


@functools.cache
def _forward_tables() -> tuple[np.ndarray, np.ndarray]:
    """8-bit sRGB -> linear in 2040ths, and that -> the root of CIE's f in 2^15ths."""
    x = np.arange(256, dtype=np.float32) / np.float32(255)
    curve = np.where(x <= 0.04045, x / 12.92, ((x.astype(np.float64) + 0.055) / 1.055) ** 2.4)
    linear = np.rint(255 * (1 << GAMMA_BITS) * curve).astype(np.int64)
    y = np.arange(256 * 3 // 2 * (1 << GAMMA_BITS)) / (255.0 * (1 << GAMMA_BITS))
    f = np.where(y < 216 / 24389, y * 841 / 108 + 16 / 116, np.cbrt(y))
    return linear, np.rint(f.astype(np.float32) * (1 << ROOT_BITS)).astype(np.int64)


@functools.cache
def _backward_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """L -> Y and fy in BASE-ths; f in BASE-ths from LOWEST -> X or Z; linear in 4096ths -> 8-bit sRGB."""
    i = np.arange(256, dtype=np.float64)
    root = np.where(i <= 20, BASE * (16 / 116 + i * 5 / (3 * 17 * 29)), BASE * (i * 100 / (255 * 116) + 16 / 116))
    height = np.where(i <= 20, i * BASE * 180 / (17 * 29**3), root**3 / BASE**2)
    k = np.arange(LOWEST, BASE * 9 // 4 + LOWEST, dtype=np.int64)
    low = np.sign(k) * (np.abs(k) * 108 // 841) - BASE * 16 // 116 * 108 // 841
    cube = np.where(k <= 3390, low, k * k // BASE * k // BASE)
    x = np.arange(1 << INVERSE_BITS) / float(1 << INVERSE_BITS)
    curve = np.where(x <= 0.0031308, x * 12.92, 1.055 * x ** (1 / 2.4) - 0.055)
    gamma = np.rint(255 * curve).astype(np.uint8)
    return np.rint(height).astype(np.int64), np.rint(root).astype(np.int64), cube, gamma
