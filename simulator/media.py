"""Images and videos as small as they can be, which say in words that they are simulated. Pure."""

import struct
import zlib
from typing import Final

WORD: Final = "SIMULATED"
_FONT: Final = {
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "I": "111 010 010 010 010 010 111",
    "M": "10001 11011 10101 10101 10001 10001 10001",
    "U": "10001 10001 10001 10001 10001 10001 01110",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "D": "11110 10001 10001 10001 10001 10001 11110",
}
_SHAPES: Final = {"1:1": (128, 128), "16:9": (160, 90), "9:16": (90, 160), "4:3": (128, 96), "3:4": (96, 128)}


def png(chance: int, prompt: str, aspect_ratio: str = "1:1") -> bytes:
    """Return a PNG in one colour that `chance` decides, with the word across it and the prompt's beginning inside."""
    width, height = _SHAPES.get(aspect_ratio, _SHAPES["1:1"])
    ink = (chance & 0xFF, chance >> 8 & 0xFF, chance >> 16 & 0xFF)
    paper = tuple(255 - one // 4 for one in ink)
    rows = [bytearray(paper * width) for _ in range(height)]
    left, top = max(0, (width - 6 * len(WORD)) // 2), (height - 7) // 2
    for letter in WORD:
        glyph = _FONT[letter].split()
        for y, line in enumerate(glyph):
            for x, dot in enumerate(line):
                if dot == "1":
                    at = (left + x) * 3
                    rows[top + y][at : at + 3] = bytes(one // 2 for one in ink)
        left += len(glyph[0]) + 1
    pixels = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows), 6)
    told = f"[simulated] {prompt}"[:500].encode("latin-1", "replace")
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"tEXt", b"Comment\0" + told),
            _chunk(b"IDAT", pixels),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def mp4(chance: int, prompt: str, seconds: float) -> bytes:
    """Return the boxes of an MP4 file that has no track: nothing to see, and it says so."""
    told = f"[simulated] {prompt}"[:500].encode()
    length_ms = int(seconds * 1000)
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    header = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, length_ms, 0x10000, 0x100) + matrix + bytes(24)
    movie = _box(b"mvhd", header + struct.pack(">I", 1)) + _box(b"udta", _box(b"cmt ", told))
    return (
        _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isomiso2mp41")
        + _box(b"moov", movie)
        + _box(b"mdat", struct.pack(">I", chance & 0xFFFFFFFF) + told)
    )


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data
