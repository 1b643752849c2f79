"""Which codecs an input may be stored with: those that turn bytes into numbers and do nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import zarr

from daskumap.errors import SourceError

# Of numcodecs, by id. Missing are those that make objects, of which pickle runs code: json2, msgpack2,
# categorize and vlen-*; and those that name other codecs.
NUMBERS = {"adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c", "delta", "fixedscaleoffset"}
NUMBERS |= {"fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "pcodec", "quantize"}
NUMBERS |= {"shuffle", "zfpy", "zlib", "zstd"}
# Of Zarr v3, by name; it calls those of numcodecs numcodecs.<id>.
NAMES = {"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"}
NAMES |= {f"numcodecs.{name}" for name in NUMBERS}
COMMON = "blosc, zstd, lz4, gzip, zlib, bz2, lzma, shuffle, delta, bitround, fixedscaleoffset, sharding"


def refuse_codecs(array: zarr.Array[Any], also: tuple[str, ...] = ()) -> None:
    """Refuse an array whose chunks are decoded by anything that is not known to make numbers only.

    Parameters
    ----------
    also
        Further names that are allowed.

    Raises
    ------
    SourceError
        Naming the codec.
    """
    if array.metadata.zarr_format == 2:
        named = [("filter or compressor", _id_of(codec), NUMBERS) for codec in _codecs_of_v2(array)]
    else:
        named = [
            ("codec", name, NAMES) for name in _names_of(codec.to_dict() for codec in array.metadata.codecs)
        ]
    for kind, name, allowed in named:
        if name not in (*allowed, *also):
            raise SourceError(
                f"{array.store_path} is stored with the {kind} {name!r}, which may make objects or run code. "
                f"Allowed are {COMMON}, and other codecs of numbers. Rewrite it as plain numbers."
            )


def _codecs_of_v2(array: zarr.Array[Any]) -> Iterator[Any]:
    yield from array.filters or ()
    yield from array.compressors or ()


def _id_of(codec: Any) -> str:
    return str(getattr(codec, "codec_id", type(codec).__name__))


def _names_of(codecs: Any) -> Iterator[str]:
    """Yield the names of codecs, and of those within shards."""
    for codec in codecs:
        yield codec["name"]
        inner: Mapping[str, Any] = codec.get("configuration") or {}
        for part in ("codecs", "index_codecs"):
            yield from _names_of(inner.get(part, ()))
