"""Open untrusted ZIP files safely: check the directory's size before reading it, and each member's before unpacking."""

from __future__ import annotations

import io
import lzma
import stat
import struct
import zipfile
import zlib

from softprompt.errors import FileRefused

MAX_MEMBERS = 4096
MAX_DIRECTORY_BYTES = 1 << 20
_END, _END_64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_MAX_END_BYTES = 22 + 65535
_ENCRYPTED = 0x61  # encrypted, patched, strongly encrypted


class Zip:
    """A ZIP file in memory. All methods raise FileRefused."""

    def __init__(self, raw: bytes) -> None:
        _check_directory(raw)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(raw))
            infos = self._zip.infolist()
        except _ZIP_ERRORS as error:
            raise FileRefused(f"its zip is damaged ({str(error)[:80]})") from error
        self.infos = {info.filename: info for info in infos}
        if len(self.infos) != len(infos):
            raise FileRefused("its zip has two members with the same name")
        for info in infos:
            _check_member(info)

    def __contains__(self, name: str) -> bool:
        return name in self.infos

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a member's unpacked bytes. Members larger than `max_bytes` are rejected."""
        if name not in self.infos:
            raise FileRefused(f"its zip has no member {name[:80]!r}")
        info = self.infos[name]
        if info.file_size > max_bytes:
            raise FileRefused(
                f"{name[:80]!r} in its zip unpacks to {info.file_size:,} bytes. At most {max_bytes:,} are allowed"
            )
        try:
            with self._zip.open(info) as member:
                raw = member.read(info.file_size + 1)
        except _ZIP_ERRORS as error:
            raise FileRefused(f"{name[:80]!r} in its zip is damaged ({str(error)[:80]})") from error
        if len(raw) != info.file_size:
            raise FileRefused(f"{name[:80]!r} in its zip does not have its declared size")
        return raw


_ZIP_ERRORS = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError,
    OSError, ValueError, struct.error, IndexError, KeyError, OverflowError,
)  # fmt: skip  # zipfile raises all of these for damaged files


def _check_directory(raw: bytes) -> None:
    """Check the declared size of the directory, because zipfile reads all of it into memory."""
    at = raw.rfind(_END, max(0, len(raw) - _MAX_END_BYTES))
    if at < 0 or at + 22 > len(raw):
        raise FileRefused("its zip is truncated")
    count, size = struct.unpack_from("<HI", raw, at + 10)
    if raw[at - 20 : at - 16] == _LOCATOR and at >= 76:
        (end,) = struct.unpack_from("<Q", raw, at - 12)
        if end + 56 > len(raw) or raw[end : end + 4] != _END_64:
            raise FileRefused("its zip is damaged (the end of its directory is not where it should be)")
        count, size = struct.unpack_from("<QQ", raw, end + 32)
    if count > MAX_MEMBERS or size > MAX_DIRECTORY_BYTES:
        raise FileRefused(
            f"its zip has {count:,} members and a directory of {size:,} bytes. "
            f"At most {MAX_MEMBERS:,} members and {MAX_DIRECTORY_BYTES:,} bytes are allowed"
        )


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        raise FileRefused("its zip is encrypted")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise FileRefused(f"{name[:80]!r} in its zip is a symbolic link")
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
        raise FileRefused(f"its zip has a member {name[:80]!r} whose path leads outside the zip")
