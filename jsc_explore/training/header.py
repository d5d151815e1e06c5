"""The header of safetensors bytes, read without torch: are they whole, and what was written beside the tensors."""

from __future__ import annotations

import json
import struct

_LENGTH = struct.Struct("<Q")


def metadata(data: bytes) -> dict[str, str]:
    """Return the metadata of safetensors bytes; ValueError if the bytes are torn or none."""
    if len(data) < _LENGTH.size:
        raise ValueError(f"{len(data)} bytes hold no header")
    begin = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    header = json.loads(data[_LENGTH.size : begin])
    try:
        said = header.pop("__metadata__", {})
        end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        told = {str(name): str(value) for name, value in said.items()}
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"a header that is none ({type(error).__name__})") from error
    if len(data) != begin + end:
        raise ValueError(f"{len(data)} bytes where the header says {begin + end}")
    return told
