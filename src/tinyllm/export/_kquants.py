"""Quantisation to llama.cpp's Q4_K and Q6_K: blocks of 256 weights with 4 or 6 bits. The package gguf only reads them.

Q4_K   x = d · s_j · q − d_min · m_j        8 sub-blocks of 32; s_j, m_j in 6 bits, q in 4
Q6_K   x = d · s_j · (q − 32)               16 sub-blocks of 16; s_j in 8 bits, q in 6
"""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 256
_ROWS = 4096  # blocks that are quantised together, so that the tries need some megabytes only
_TRIES = np.arange(-1.0, 1.05, 0.1)  # the scale is tried with 15 steps in the range, plus each of these


def q4_k(weights: Any) -> Any:
    """Return a matrix (R, C), C a multiple of 256, as bytes (R, C / 256 · 144)."""
    blocks = weights.reshape(-1, BLOCK).astype(np.float32)
    packed = np.concatenate([_q4_k(blocks[at : at + _ROWS]) for at in range(0, len(blocks), _ROWS)])
    return packed.reshape(weights.shape[0], -1)


def q6_k(weights: Any) -> Any:
    """Return a matrix (R, C), C a multiple of 256, as bytes (R, C / 256 · 210)."""
    blocks = weights.reshape(-1, BLOCK).astype(np.float32)
    packed = np.concatenate([_q6_k(blocks[at : at + _ROWS]) for at in range(0, len(blocks), _ROWS)])
    return packed.reshape(weights.shape[0], -1)


def _q4_k(blocks: Any) -> Any:
    x = blocks.reshape(-1, 8, 32)
    scale, low = _range_of(x)
    d = (scale.max(1) / 63).astype(np.float16)
    d_min = (low.max(1) / 63).astype(np.float16)
    s = np.clip(np.rint(_over(scale, d[:, None])), 0, 63).astype(np.uint8)
    m = np.clip(np.rint(_over(low, d_min[:, None])), 0, 63).astype(np.uint8)
    step = (d[:, None].astype(np.float32) * s)[..., None]
    q = np.clip(np.rint(_over(x + (d_min[:, None].astype(np.float32) * m)[..., None], step)), 0, 15).astype(np.uint8)
    scales = np.empty((len(x), 12), np.uint8)
    scales[:, :4] = s[:, :4] | (s[:, 4:] >> 4 << 6)
    scales[:, 4:8] = m[:, :4] | (m[:, 4:] >> 4 << 6)
    scales[:, 8:] = (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    nibbles = (q[:, 0::2] | q[:, 1::2] << 4).reshape(len(x), 128)
    halves = [h[:, None].view(np.uint8) for h in (d, d_min)]
    return np.concatenate([*halves, scales, nibbles], axis=1)


def _range_of(x: Any) -> tuple[Any, Any]:
    """Return the scale and −minimum of each sub-block, with the smallest weighted squared error of all tries."""
    weight = np.sqrt((x * x).mean(-1, keepdims=True)) + np.abs(x)
    bottom, top = np.minimum(x.min(-1), 0), x.max(-1)
    width = np.maximum(top - bottom, 1e-30)
    best_scale, best_low = width / 15, -bottom
    total, sum_x = weight.sum(-1), (weight * x).sum(-1)
    least = np.full(x.shape[:-1], np.inf, np.float32)
    for more in (0.0, *_TRIES):
        q = np.clip(np.rint((x - bottom[..., None]) * ((15 + more) / width)[..., None]), 0, 15)
        sum_q, sum_qq, sum_qx = (weight * q).sum(-1), (weight * q * q).sum(-1), (weight * q * x).sum(-1)
        determinant = total * sum_qq - sum_q * sum_q
        scale = _over(total * sum_qx - sum_x * sum_q, determinant)
        low = np.maximum(-_over(sum_qq * sum_x - sum_q * sum_qx, determinant), 0)
        error = (weight * (scale[..., None] * q - low[..., None] - x) ** 2).sum(-1)
        better = (error < least) & (scale > 0)
        least = np.where(better, error, least)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, low, best_low)
    return best_scale, best_low


def _q6_k(blocks: Any) -> Any:
    x = blocks.reshape(-1, 16, 16)
    peak = np.take_along_axis(x, np.abs(x).argmax(-1)[..., None], -1)[..., 0]
    scale = peak / -32
    largest = np.take_along_axis(scale, np.abs(scale).argmax(-1)[:, None], -1)[:, 0]
    d = (largest / -128).astype(np.float16)
    s = np.clip(np.rint(_over(scale, d[:, None])), -128, 127).astype(np.int8)
    step = (d[:, None].astype(np.float32) * s)[..., None]
    q = (np.clip(np.rint(_over(x, step)), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([(q[:, :, :2] & 15) | (q[:, :, 2:] & 15) << 4], axis=-1).reshape(len(x), 128)
    high = (q >> 4) << np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]
    return np.concatenate(
        [low, np.bitwise_or.reduce(high, axis=2).reshape(len(x), 64), s.view(np.uint8), d[:, None].view(np.uint8)],
        axis=1,
    )


def _over(values: Any, by: Any) -> Any:
    """Divide in float32. A division by 0 gives 0."""
    by = np.asarray(by, np.float32)
    return np.divide(values, by, out=np.zeros(np.broadcast(values, by).shape, np.float32), where=by != 0)
