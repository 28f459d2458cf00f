"""Records of drawings: their order, their duplicates and their encoding as TFRecords.

Compiled code works on the bytes of all records at once. A record is a ``tf.train.Example`` with
``strokes`` (or ``image``) as raw bytes, ``label`` and ``key_id``, framed as a TFRecord with its
checksums.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from ostinato.sketches.formats.strokes import compiled


class Records(NamedTuple):
    """Drawings to be stored, a row for each; the bytes of all drawings in one array."""

    content: UInt8[np.ndarray, " byte"]
    """Stroke-3 rows of int16, or pixels."""
    ends: Int64[np.ndarray, " record"]
    """The end of each record in ``content``."""
    keys: UInt8[np.ndarray, " key_byte"]
    """``key_id`` in UTF-8."""
    key_ends: Int64[np.ndarray, " record"]
    """The end of each key in ``keys``."""
    labels: Int64[np.ndarray, " record"]
    splits: Int64[np.ndarray, " record"]
    """Index into `SPLITS`."""
    digests: UInt64[np.ndarray, " record"]
    """Hash of class and content: the stored order."""


@compiled
def gather(flat, spans):  # type: ignore[no-untyped-def]
    """The parts flat[begin:end] of all spans (span, 2), concatenated, and the end of each."""
    ends = np.empty(len(spans), np.int64)
    size = 0
    for i in range(len(spans)):
        size += spans[i, 1] - spans[i, 0]
        ends[i] = size
    joined = np.empty(size, flat.dtype)
    at = 0
    for i in range(len(spans)):
        for j in range(spans[i, 0], spans[i, 1]):
            joined[at] = flat[j]
            at += 1
    return joined, ends


@compiled
def digests(flat, ends, seeds):  # type: ignore[no-untyped-def]
    """A hash uint64 of each part flat[..., end] and its seed. It must never change.

    FNV-1a (Fowler, Noll and Vo 1991), then the finaliser of SplitMix64 (Steele, Lea and Flood
    2014), so that all bits are uniform.
    """
    hashes = np.empty(len(ends), np.uint64)
    begin = 0
    for i in range(len(ends)):
        h = np.uint64(0xCBF29CE484222325) ^ seeds[i]
        for j in range(begin, ends[i]):
            h = (h ^ np.uint64(flat[j])) * np.uint64(0x100000001B3)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        hashes[i] = h ^ (h >> np.uint64(31))
        begin = ends[i]
    return hashes


@compiled
def is_first(content, ends, labels, digests):  # type: ignore[no-untyped-def]
    """Whether each record, in order of digests, is the first of its class with its content."""
    first = np.ones(len(ends), np.bool_)
    for i in range(1, len(ends)):
        other = i - 1
        while other >= 0 and digests[other] == digests[i]:
            size = ends[i] - ends[i - 1]
            begin = ends[other - 1] if other else 0
            same = labels[other] == labels[i] and ends[other] - begin == size
            at = 0
            while same and at < size:
                same = content[begin + at] == content[ends[i - 1] + at]
                at += 1
            if same:
                first[i] = False
                break
            other -= 1
    return first


FRAME_BYTES = 16  # of a TFRecord besides its data: length, its checksum, the data's checksum


def _castagnoli() -> Int64[np.ndarray, "8 256"]:
    """Tables of CRC-32C for eight bytes at a time (Kounavis and Berry 2005)."""
    tables = np.empty((8, 256), np.int64)
    tables[0] = np.arange(256)
    for _ in range(8):
        tables[0] = (tables[0] >> 1) ^ (tables[0] & 1) * 0x82F63B78
    for k in range(1, 8):
        tables[k] = tables[0][tables[k - 1] & 255] ^ (tables[k - 1] >> 8)
    return tables


CRC = _castagnoli()


def encode(records: Records, field: str) -> UInt8[np.ndarray, " byte"]:
    """The records as the bytes of a TFRecord file of ``tf.train.Example`` messages."""
    framed: UInt8[np.ndarray, " byte"] = _encoded(
        *records[:5], np.frombuffer(field.encode(), np.uint8)
    )
    return framed


# Field numbers of protocol buffers, typed: numba compiles again for each literal that it meets.
VALUE = KEY = FEATURE = FEATURES = BYTES = np.int64(1)
ENTRY_VALUE, INTEGERS = np.int64(2), np.int64(3)
NONE, WORD, LONG = np.int64(0), np.int64(4), np.int64(8)
LABEL, KEY_ID = np.frombuffer(b"label", np.uint8), np.frombuffer(b"key_id", np.uint8)


@compiled
def _encoded(content, ends, keys, key_ends, labels, field):  # type: ignore[no-untyped-def]
    """The TFRecord file of records; written backwards, so each length is known when needed."""
    out = np.empty(len(content) + len(keys) + (128 + len(field)) * len(ends), np.uint8)
    at = len(out)
    for i in range(len(ends) - 1, -1, -1):
        stop = at = at - 4
        at = _put(out, at, content, ends[i - 1] if i else 0, ends[i])
        at = _feature(out, at, stop, BYTES, field)
        end = at
        at = _varint(out, at, labels[i])
        at = _feature(out, at, end, INTEGERS, LABEL)
        end = at
        at = _put(out, at, keys, key_ends[i - 1] if i else 0, key_ends[i])
        at = _feature(out, at, end, BYTES, KEY_ID)
        at = _head(out, at, FEATURES, stop - at)
        _fixed(out, stop, _checksum(out, at, stop), WORD)
        _fixed(out, at - 12, stop - at, LONG)
        _fixed(out, at - 4, _checksum(out, at - 12, at - 4), WORD)
        at -= 12
    return out[at:].copy()


@compiled
def _feature(out, at, stop, kind, name):  # type: ignore[no-untyped-def]
    """Wrap out[at:stop] as an entry of the map Features.feature; return where the entry begins."""
    at = _head(out, at, VALUE, stop - at)  # of BytesList, or of Int64List, packed
    at = _head(out, at, kind, stop - at)  # Feature.bytes_list, or Feature.int64_list
    at = _head(out, at, ENTRY_VALUE, stop - at)
    at = _put(out, at, name, NONE, len(name))
    at = _head(out, at, KEY, len(name))
    return _head(out, at, FEATURE, stop - at)


@compiled
def _head(out, at, number, size):  # type: ignore[no-untyped-def]
    """Write the head of a protocol buffer's field of ``size`` bytes before ``at``."""
    at = _varint(out, at, size) - 1
    out[at] = number << 3 | 2
    return at


@compiled
def _varint(out, at, value):  # type: ignore[no-untyped-def]
    size, rest = 1, value >> 7
    while rest:
        size, rest = size + 1, rest >> 7
    for i in range(size):
        out[at - size + i] = (value >> (7 * i)) & 127 | (128 if i < size - 1 else 0)
    return at - size


@compiled
def _put(out, at, source, begin, end):  # type: ignore[no-untyped-def]
    for i in range(end - begin):
        out[at - (end - begin) + i] = source[begin + i]
    return at - (end - begin)


@compiled
def _fixed(out, at, value, size):  # type: ignore[no-untyped-def]
    for i in range(size):
        out[at + i] = (value >> (8 * i)) & 255


@compiled
def _checksum(out, begin, end):  # type: ignore[no-untyped-def]
    """TFRecord's masked CRC-32C."""
    crc = np.int64(0xFFFFFFFF)
    while end - begin >= 8:
        crc ^= (
            np.int64(out[begin])
            | np.int64(out[begin + 1]) << 8
            | np.int64(out[begin + 2]) << 16
            | np.int64(out[begin + 3]) << 24
        )
        crc = (
            CRC[7, crc & 255]
            ^ CRC[6, (crc >> 8) & 255]
            ^ CRC[5, (crc >> 16) & 255]
            ^ CRC[4, crc >> 24]
            ^ CRC[3, out[begin + 4]]
            ^ CRC[2, out[begin + 5]]
            ^ CRC[1, out[begin + 6]]
            ^ CRC[0, out[begin + 7]]
        )
        begin += 8
    for i in range(begin, end):
        crc = CRC[0, (crc ^ out[i]) & 255] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
