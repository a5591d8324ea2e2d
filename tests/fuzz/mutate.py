"""Changing bytes at random, from a corpus that grows by what was answered in a new way."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

LONGEST = 1 << 17  # bytes of an input: what takes long at this size takes hours at the largest
_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 1023, 32767, 32768, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1)  # fmt: skip
_TEXTS = (b"{", b"}", b"[" * 3000, b"]", b'"', b":", b",", b"null", b"NaN", b"1e999", b"-1", b"\x00", b"\xff\xfe", b"../../x", b"9" * 5000, b"\\ud800", b"true")  # fmt: skip


def mutated(chance: random.Random, corpus: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """One of the corpus with one to eight changes; `words` are what the format is made of."""
    data = bytearray(chance.choice(corpus))
    for _ in range(1 << chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(10):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at % len(data)] = chance.randrange(256)
            case 2:
                del data[at : at + 1 + int(chance.expovariate(0.1))]
            case 3:
                piece = data[at : at + 1 + int(chance.expovariate(0.05))]
                data[at:at] = piece * chance.choice((1, 1, 1, 2, 50))
            case 4:
                other = chance.choice(corpus)
                begin = chance.randrange(len(other) + 1)
                data[at : at + chance.randrange(64)] = other[begin : begin + chance.randrange(256)]
            case 5:
                del data[at:]
            case 6 | 7:
                data[at : at + chance.choice((0, 0, 4))] = chance.choice((*words, *_TEXTS))
            case 8:
                size, order = chance.choice("BHIQ"), chance.choice("<>")
                raw = struct.pack(order + "Q", chance.choice(_NUMBERS))
                width = struct.calcsize(size)
                data[at : at + width] = raw[:width] if order == "<" else raw[-width:]
            case _:
                digits = str(chance.choice(_NUMBERS)).encode()
                begin = next((i for i in range(at, len(data)) if chr(data[i]).isdigit()), at)
                end = next((i for i in range(begin, len(data)) if not chr(data[i]).isdigit()), len(data))
                data[begin:end] = digits
    return bytes(data[:LONGEST])
