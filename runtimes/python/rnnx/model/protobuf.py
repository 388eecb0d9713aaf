"""Reading protobuf messages without a protobuf library: just enough to look into an ONNX file.

Source: the protobuf encoding (varint, 64-bit, length-delimited and 32-bit fields).
"""

from __future__ import annotations

from collections.abc import Iterator

Field = tuple[int, int | memoryview, int, int]


def fields(message: memoryview) -> Iterator[Field]:
    """Yield (field number, value, start, end) for each field of `message`, in order.

    A varint or fixed field yields an int, a length-delimited one a memoryview; `start` and `end` are the
    byte offsets of the whole field, tag included. Raises ValueError where the bytes are no message.
    """
    position, size = 0, len(message)
    while position < size:
        start = position
        tag, position = varint(message, position)
        number, kind = tag >> 3, tag & 7
        value: int | memoryview
        if number == 0:
            raise ValueError("field number 0")
        if kind == 0:
            value, position = varint(message, position)
        elif kind == 2:
            length, position = varint(message, position)
            value = message[position : position + length]
            if len(value) != length:
                raise ValueError(f"a field of {length} bytes with {len(value)} left")
            position += length
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            if position + width > size:
                raise ValueError("a number cut short")
            value = int.from_bytes(message[position : position + width], "little")
            position += width
        else:
            raise ValueError(f"wire type {kind}")
        yield number, value, start, position


def varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return the varint at `position` and the position after it. Raises ValueError."""
    result = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("a varint cut short")
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def packed(view: memoryview) -> list[int]:
    """Return the varints of a packed field. Raises ValueError."""
    numbers, position = [], 0
    while position < len(view):
        number, position = varint(view, position)
        numbers.append(number)
    return numbers


def encode_varint(value: int) -> bytes:
    """Return `value` (not negative) as a varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_bytes(number: int, payload: bytes) -> bytes:
    """Return a length-delimited field."""
    return encode_varint(number << 3 | 2) + encode_varint(len(payload)) + payload


def encode_int(number: int, value: int) -> bytes:
    """Return a varint field."""
    return encode_varint(number << 3) + encode_varint(value)
