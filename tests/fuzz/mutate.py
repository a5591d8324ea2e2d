"""Change inputs of the fuzzer at random."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

MAX_INPUT_BYTES = 1 << 17  # an input that is slow at this size would take hours at the largest size
_NUMBERS = (
    0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 1023, 32767, 32768, 65535, 1 << 20, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 62, (1 << 63) - 1,
)  # fmt: skip
_TEXTS = (
    b"{", b"}", b"[" * 3000, b"]", b'"', b":", b",", b"null", b"NaN", b"1e999", b"-1", b"\x00", b"\xff\xfe",
    b"../../x", b"9" * 5000, b"\\ud800", b"true",
)  # fmt: skip


def mutate(rng: random.Random, corpus: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """Return an input of the corpus with one to eight changes. `words` are typical pieces of the format."""
    data = bytearray(rng.choice(corpus))
    for _ in range(1 << rng.randrange(4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(10):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at % len(data)] = rng.randrange(256)
            case 2:
                del data[at : at + 1 + int(rng.expovariate(0.1))]
            case 3:
                piece = data[at : at + 1 + int(rng.expovariate(0.05))]
                data[at:at] = piece * rng.choice((1, 1, 1, 2, 50))
            case 4:
                other = rng.choice(corpus)
                start = rng.randrange(len(other) + 1)
                data[at : at + rng.randrange(64)] = other[start : start + rng.randrange(256)]
            case 5:
                del data[at:]
            case 6 | 7:
                data[at : at + rng.choice((0, 0, 4))] = rng.choice((*words, *_TEXTS))
            case 8:
                size, order = rng.choice("BHIQ"), rng.choice("<>")
                raw = struct.pack(order + "Q", rng.choice(_NUMBERS))
                width = struct.calcsize(size)
                data[at : at + width] = raw[:width] if order == "<" else raw[-width:]
            case _:
                digits = str(rng.choice(_NUMBERS)).encode()
                start = next((i for i in range(at, len(data)) if chr(data[i]).isdigit()), at)
                end = next((i for i in range(start, len(data)) if not chr(data[i]).isdigit()), len(data))
                data[start:end] = digits
    return bytes(data[:MAX_INPUT_BYTES])
