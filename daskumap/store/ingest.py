"""How the user's data gets in: found in a Zarr store, or written from memory into the run store."""

import difflib
import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.errors import NodeNotFoundError
from zarr.storage import FsspecStore, LocalStore

from daskumap.errors import DaskumapError, DependencyError, SourceError, SourceNotFoundError
from daskumap.store.trouble import is_url

if TYPE_CHECKING:
    from daskumap.store.source import Source

# Stores that a path or a URL describes in full.
REOPENABLE = (LocalStore, FsspecStore)
# Large enough that a file costs little, small enough that a scattered row does.
INGEST_CHUNK_BYTES = 4 << 20
# Several dask blocks are computed at once, so that small ones keep all threads busy.
INGEST_BLOCK_BYTES = 64 << 20
LISTED = 12
# Never a secret: a spec goes into the run store, and credentials come from each worker's environment.
SHARED_OPTIONS = ("anon", "endpoint_url", "profile", "project", "requester_pays", "account_name")
FLOATS_AND_MORE = "float16, float32, float64, integers and bool"
# What people pass instead of Zarr, and how it becomes Zarr.
FOREIGN = {
    ".npy": ("a NumPy file", "Pass numpy.load(path, mmap_mode='r') instead of the path"),
    ".npz": ("a NumPy archive", "Pass numpy.load(path)['name'] instead of the path"),
    ".h5ad": ("an AnnData HDF5 file", "Convert it: anndata.read_h5ad(path).write_zarr('data.zarr')"),
    ".h5": ("an HDF5 file", "Convert it: zarr.create_array('data.zarr', data=h5py.File(path)['name'][:])"),
    ".csv": ("a table of text", "Pass pandas.read_csv(path).to_numpy() instead of the path"),
    ".parquet": ("a Parquet file", "Pass pandas.read_parquet(path).to_numpy() instead of the path"),
    ".zip": ("a zip file", "Unpack it and pass the folder"),
}
FOREIGN |= {".hdf5": FOREIGN[".h5"], ".tsv": FOREIGN[".csv"]}


def find_array(data: Any) -> Any:
    """Return the Zarr array, NumPy array or dask array that the user means."""
    if isinstance(data, str | os.PathLike | Store):
        data = open_node(data)
    if isinstance(data, zarr.Group):
        return _only_array(data)
    if isinstance(data, zarr.Array):
        return data
    if type(data).__module__.partition(".")[0] == "xarray":
        data = data.data
    return data if _is_dask(data) else _as_numpy(data)


def check_array(array: Any) -> None:
    """Refuse what is no two-dimensional, numeric, regularly chunked array."""
    name = str(array.store_path) if isinstance(array, zarr.Array) else f"The {type(array).__name__}"
    shape = tuple(array.shape)
    if len(shape) != 2:
        raise SourceError(
            f"{name} has {len(shape)} dimensions {shape}; 2 are needed. Reshape it to rows x features first."
        )
    if any(math.isnan(size) for size in shape):
        raise SourceError(f"{name} has chunks of unknown size. Call compute_chunk_sizes() on it first.")
    if 0 in shape:
        raise SourceError(
            f"{name} is empty: its shape is {shape}. At least one row and one column are needed."
        )
    if not _is_numeric(array.dtype):
        raise SourceError(
            f"{name} holds {array.dtype}; allowed are {FLOATS_AND_MORE}. Convert it with astype first."
        )
    if isinstance(array, zarr.Array):
        _check_stored(array, name)


def open_node(where: Any, storage_options: dict[str, Any] | None = None) -> zarr.Array[Any] | zarr.Group:
    """Open a path, a URL or a store read-only, as the array or group that lies there."""
    if isinstance(where, Store):
        return _open(where, str(where), None)
    text = os.fspath(where)
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if is_url(text):
        return _open(text.rstrip("/"), text, storage_options)
    try:
        path = Path(text).expanduser().resolve()
        if not path.exists():
            raise _not_found(path)
        return _open(path, str(path), None)
    except DaskumapError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, what may not be read, no path
        raise SourceError(
            f"{text!r} cannot be followed ({type(error).__name__}: {error}). Check the links and permissions "
            "on the way, or give another path."
        ) from error


def node_spec(array: Any) -> dict[str, Any]:
    """Return path or URL, and options, with which `open_node` finds a Zarr array again."""
    store = getattr(array, "store", None)
    if isinstance(store, LocalStore):
        return {"kind": "zarr", "path": str((store.root / array.path).resolve())}
    if isinstance(store, FsspecStore):
        fs = getattr(store.fs, "sync_fs", store.fs)  # zarr wraps what is not asynchronous
        options = {k: v for k, v in fs.storage_options.items() if k in SHARED_OPTIONS}
        url = "/".join(part for part in (fs.unstrip_protocol(store.path), array.path) if part)
        return {"kind": "zarr", "path": url, "storage_options": options}
    held = type(store or array).__name__
    raise SourceError(
        f"Other processes cannot open the {held}. Write it into the run store with ingest_numpy first."
    )


def ingest_numpy(array: Any, group: zarr.Group, name: str) -> "Source":
    """Write an array in memory into the run store, block by block, and return it as a source.

    The result does not depend on the memory layout; writing the same array again gives the same bytes.
    `array` may also be what NumPy can convert, or a Zarr array, for instance one in a memory store.
    """
    return _write(array, group, name)


def ingest_dask(array: Any, group: zarr.Group, name: str) -> "Source":
    """Compute a dask array block of rows by block of rows into the run store, and return it as a source.

    Each dask block is computed once, by dask's current scheduler, and no more than 64 MB, or one block of
    rows, is held. A graph that reduces over all rows, such as `X - X.mean(axis=0)`, is evaluated again
    for each batch: compute the reduction first.
    """
    # dask.array.to_zarr loses rows of shards (2026.8.0), so the blocks are written here.
    return _write(array, group, name)


def ingest(array: Any, group: zarr.Group, name: str) -> tuple["Source", str]:
    """Write an array in memory, or a dask array, into the run store; return the source and its digest."""
    digest = hashlib.sha256()
    return _write(array, group, name, digest), digest.hexdigest()


def digest_of(array: Any) -> str:
    """Return a digest of all values of an array, whatever its chunks; a dask array is computed for it."""
    array = find_array(array)
    check_array(array)
    digest = hashlib.sha256()
    for block in _blocks(array):
        digest.update(np.ascontiguousarray(block, array.dtype.newbyteorder("=")).data)
    return digest.hexdigest()


def _blocks(array: Any) -> Iterable[npt.NDArray[Any]]:
    """Return an array as blocks of consecutive rows, each of them in memory only once it is asked for."""
    if not _is_dask(array):
        return (array[a:b] for a, b in _ranges(array.shape[0], _batch_rows(array)))
    array = array.rechunk({1: -1})
    ends = np.cumsum(array.chunks[0]).tolist()
    return (_compute(array, a, b) for a, b in _batches(ends, _batch_rows(array)))


def _write(array: Any, group: zarr.Group, name: str, digest: Any = None) -> "Source":
    """Write an array block by block, always in whole chunks."""
    from daskumap.store.source import Source  # sources are opened through this module

    array = find_array(array)
    check_array(array)
    target = _create(array, group, name)
    step, row, rest = target.chunks[0], 0, np.empty((0, array.shape[1]), target.dtype)
    for block in _blocks(array):
        block = np.ascontiguousarray(block, dtype=target.dtype)
        if digest is not None:
            digest.update(block.data)
        while len(rest) + len(block) >= step:
            head = np.concatenate([rest, block[: step - len(rest)]]) if len(rest) else None
            ready = block[: len(block) // step * step] if head is None else head
            block = block[len(ready) - len(rest) :]
            target[row : row + len(ready)] = ready
            row, rest = row + len(ready), rest[:0]
        rest = np.concatenate([rest, block])
    if len(rest):
        target[row : row + len(rest)] = rest
    return Source(target)


def _create(array: Any, group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Create the array in the run store: whole rows, and a checksum, or a flipped bit would go unnoticed."""
    dtype = array.dtype.newbyteorder("=")
    rows = max(1, INGEST_CHUNK_BYTES // (array.shape[1] * dtype.itemsize))
    return group.create_array(
        name,
        shape=array.shape,
        dtype=dtype,
        chunks=(min(rows, array.shape[0]), array.shape[1]),
        filters=None,
        serializer=BytesCodec(),
        compressors=[Crc32cCodec()],
        fill_value=np.nan if dtype.kind == "f" else 0,
        overwrite=True,
    )


def _ranges(rows: int, step: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _batches(ends: list[int], rows: int) -> Iterator[tuple[int, int]]:
    """Group consecutive blocks, given by their ends, into batches of at most `rows`, or of one block."""
    start = end = 0
    for stop in ends:
        if stop - start > rows and end > start:
            yield start, end
            start = end
        end = stop
    yield start, end


def _batch_rows(array: Any) -> int:
    return max(1, INGEST_BLOCK_BYTES // int(array.shape[1] * array.dtype.itemsize))


def _compute(array: Any, start: int, stop: int) -> npt.NDArray[Any]:
    block = array[start:stop].compute()
    if block.shape != (stop - start, array.shape[1]):
        raise SourceError(
            f"Rows {start} to {stop} of the dask array came out as {block.shape}, not as its chunks promise. "
            "Call compute_chunk_sizes() on it first."
        )
    return _as_numpy(block)


def _is_dask(data: Any) -> bool:
    # By name, since importing dask takes longer than most runs on small data.
    return type(data).__module__.startswith("dask.array")


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "bui" or (dtype.kind == "f" and dtype.itemsize <= 8)


def _as_numpy(data: Any) -> npt.NDArray[Any]:
    """Return an array in memory; refuse what NumPy would take apart or change in silence."""
    kind = type(data).__name__
    if hasattr(data, "tocsr") or hasattr(data, "todense"):
        raise SourceError(f"The input is sparse ({kind}); dense is needed for now. Pass data.toarray().")
    if isinstance(data, np.ma.MaskedArray):
        raise SourceError("The input is a masked array, and rows must be complete. Pass data.filled(value).")
    if type(data).__module__.startswith("dask"):
        raise SourceError(f"The input is a dask {kind}; pass data.to_dask_array(lengths=True).")
    try:
        return np.asarray(data)
    except (ValueError, TypeError) as error:
        raise SourceError(
            f"The {kind} is no two-dimensional array ({error}). Pass a path, a Zarr, NumPy or dask array."
        ) from error


def _check_stored(array: zarr.Array[Any], name: str) -> None:
    try:
        assert array.chunks
    except NotImplementedError as error:
        raise SourceError(f"{name} has chunks of varying size. Rewrite it with one chunk shape.") from error
    codecs = (*(array.filters or ()), *(array.compressors or ()))
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in codecs):
        raise SourceError(f"{name} is stored as pickles, which can run code. Rewrite it as plain numbers.")


def _open(where: Any, name: str, storage_options: dict[str, Any] | None) -> zarr.Array[Any] | zarr.Group:
    """Open with zarr, and say in our words what went wrong."""
    try:
        # What was added after the last consolidation is invisible through consolidated metadata.
        return zarr.open(where, mode="r", storage_options=storage_options, use_consolidated=False)
    except NodeNotFoundError as error:
        raise _not_zarr(where, name) from error
    except ImportError as error:
        raise DependencyError(
            f"{name} cannot be opened: {error}. Install it: pip install 'daskumap[remote]', and what fsspec "
            f"needs for {name.partition(':')[0]}:// (s3fs, gcsfs, adlfs or aiohttp)."
        ) from error
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is nothing at {name}. Check the address.") from error
    except MemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise SourceError(
            f"{name} cannot be opened as Zarr ({reason}). Its metadata is damaged, it holds objects, "
            "or it needs a codec that is not installed. Check the address, or write it as plain numbers."
        ) from error


def _not_found(path: Path) -> SourceError:
    """Say what lies near a path that does not exist."""
    parent = next(folder for folder in path.parents if folder.exists())
    if parent.is_file():
        return _not_zarr(parent, str(parent))
    names = [entry.name for entry in sorted(parent.iterdir()) if not _is_plumbing(entry.name)]
    near = difflib.get_close_matches(path.relative_to(parent).parts[0], names, LISTED, 0.3) or names[:LISTED]
    listed = f"Near it, in {parent}: {', '.join(near)}." if near else f"{parent} is empty."
    return SourceNotFoundError(f"There is nothing at {path}. {listed} Check the path.")


def _not_zarr(where: Any, name: str) -> SourceError:
    """Say what it looks like, and how it becomes Zarr."""
    if not isinstance(where, Path):
        return SourceNotFoundError(f"There is no Zarr array or group at {name}. Check the address.")
    if where.is_file():
        kind, remedy = FOREIGN.get(where.suffix.lower(), ("a file", "Pass the folder of a Zarr array"))
        return SourceError(f"{name} is {kind}, not a Zarr array. {remedy}.")
    names = [entry.name for entry in sorted(where.iterdir()) if not _is_plumbing(entry.name)][:LISTED]
    return SourceError(
        f"{name} is a folder, but no Zarr array or group: it holds {', '.join(names) or 'nothing'}. "
        "Pass the folder that has a zarr.json, .zarray or .zgroup."
    )


def _is_plumbing(name: str) -> bool:
    return name.startswith(".") or name in ("zarr.json", "c")


def _only_array(group: zarr.Group) -> zarr.Array[Any]:
    """Return the array that a group stands for: AnnData's X, or its only two-dimensional one."""
    name, is_anndata = str(group.store_path), group.attrs.get("encoding-type") == "anndata"
    sparse = group["X"] if is_anndata and "X" in group else group
    if isinstance(sparse, zarr.Array):
        return sparse
    found = _matrices(group, name)
    listing = "; ".join(f"{path} {a.shape[0]} x {a.shape[1]} {a.dtype}" for path, a in found[:LISTED])
    if str(sparse.attrs.get("encoding-type", "")).endswith(("csr_matrix", "csc_matrix")):
        other = f"Or append a dense array to the path: {listing}." if found else ""
        raise SourceError(
            f"{sparse.store_path} is sparse; dense is needed for now. Write adata.X.toarray(). {other}"
        )
    if len(found) == 1 and not is_anndata:
        return found[0][1]
    if not found:
        raise SourceError(f"{name} is a group without a two-dimensional numeric array. Pass the path of one.")
    raise SourceError(
        f"{name} is a group with {len(found)} two-dimensional arrays. Append one to the path: {listing}."
    )


def _matrices(group: zarr.Group, name: str) -> list[tuple[str, zarr.Array[Any]]]:
    """List the two-dimensional numeric arrays of a group, at any depth, by path."""
    try:
        # A web server lists nothing: there, only consolidated metadata knows the members.
        listed = group if group.store.supports_listing else zarr.open_group(group.store_path, mode="r")
        arrays = [
            (path, node) for path, node in listed.members(max_depth=None) if isinstance(node, zarr.Array)
        ]
    except Exception as error:
        raise SourceError(
            f"The group {name} cannot be listed ({type(error).__name__}: {error}). "
            "Append the name of an array to the path."
        ) from error
    named = sorted(arrays, key=lambda item: item[0])
    return [(path, node) for path, node in named if node.ndim == 2 and _is_numeric(node.dtype)]
