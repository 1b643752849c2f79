"""Where compiled kernels are kept: one file for each function and signature, in a folder for each source.

Numba's own cache looks at the file of the function alone, and a kernel also holds what it inlined from other
files: it would run on after one of them was changed. Here the folder's name is a hash of all that the machine
code depends on, so a file in it cannot be of another source. A file appears whole or not at all, and several
processes that compile at once write the same.
"""

import hashlib
import logging
import os
import pickle
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding as llvm  # type: ignore[import-untyped]
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

logger = logging.getLogger(__name__)

KERNELS = Path(__file__).parent
# Folders that stay when a new one is made, the newest first: branches, Pythons and CPUs that take turns in
# one checkout do not compile each other's anew. The tests of the kernels fill one with 4 MB (measured).
KEPT = 8


def hash_sources(root: Path) -> str:
    """Return a hash of all Python files below a folder, names and content; empty where there is none."""
    digest, found = hashlib.sha256(), False
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        for name in sorted(names):
            if name.endswith(".py"):
                path = Path(folder, name)
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(content)} ".encode() + content)
                found = True
    return digest.hexdigest() if found else ""


# When this module is imported, and not when the first kernel is compiled: a file that is edited meanwhile is
# not the one that this process runs. 34 files take 0.7 ms (measured).
_sources = hash_sources(KERNELS)


def source_digest() -> str:
    """Return the digest of the kernels' source that this process runs."""
    return _sources


def _folder_name() -> str:
    """Return a name that differs wherever the same function could become different machine code."""
    numba_ = (numba.__version__, config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)
    cpu = (config.CPU_NAME, config.CPU_FEATURES, llvm.get_host_cpu_name(), get_host_cpu_features())
    depends_on = (_sources, sys.implementation.cache_tag, llvm.llvm_version_info, numba_, cpu)
    return "kernels-" + hashlib.sha256(repr(depends_on).encode()).hexdigest()[:16]


def _places() -> Iterator[Path]:
    """Yield the folders that may hold caches, the first choice first."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR).absolute() / "daskumap"
    yield KERNELS / "__pycache__"
    own = Path(AppDirs(appname="daskumap", appauthor=False).user_cache_dir)
    if own.is_absolute():  # it is not for a user without a home, and would land in the working directory
        yield own


def _is_writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
    except OSError:
        return False
    return True


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


@cache
def cache_folder() -> Path | None:
    """Return where this process keeps its kernels, or None, with a warning, where no place can be written.

    The folder itself is made with its first file.
    """
    if _sources:
        for place in _places():
            if _is_writable(place):
                return place / _folder_name()
    _warn_once(
        "No folder for compiled kernels can be written, so each process takes half a minute for its own. "
        "Set NUMBA_CACHE_DIR to a folder that can be written."
    )
    return None


def cached_names() -> list[str]:
    """Return the names of the files that hold kernels of this source, machine and Numba."""
    folder = cache_folder()
    try:
        return [] if folder is None else os.listdir(folder)
    except FileNotFoundError:
        return []


class KernelCache(FunctionCache):  # type: ignore[misc]
    """The machine code of one function, found and kept as Numba's dispatcher asks for it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        # Numba's own constructor would look for a place at import, and raise where there is none.
        self._py_func = function
        self._name = f"{function.__module__}.{function.__qualname__}"
        self.enable()

    @property
    def cache_path(self) -> str | None:
        """The folder, for Numba's statistics."""
        folder = cache_folder()
        return None if folder is None else str(folder)

    def flush(self) -> None:
        """Forget the function's machine code of all signatures."""
        folder = cache_folder()
        for path in folder.glob(f"{self._name}-*.nbc") if folder else ():
            path.unlink(missing_ok=True)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function of a signature; None where it is not there or cannot be read."""
        folder = cache_folder()
        if folder is None or not self._enabled:
            return None
        target_context.refresh()
        key = self._index_key(sig, target_context.codegen())
        path = self._path(folder, key)
        try:
            stored, payload = pickle.loads(path.read_bytes())
            return CompileResult._rebuild(target_context, *payload) if stored == key else None
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged file raises anything, and is written again
            logger.debug("The compiled kernel %s cannot be read, it is compiled anew: %r", path, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled function of a signature; where that fails, this process runs it all the same."""
        folder = cache_folder()
        if folder is None or not self._enabled or data.lifted or data.library.has_dynamic_globals:
            return
        key = self._index_key(sig, data.codegen)
        try:
            _write(self._path(folder, key), dumps((key, data._reduce())))
        except OSError as error:
            _warn_once(f"Compiled kernels cannot be kept in {folder}, each process compiles its own: {error}")

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        # The folder tells the source, and the name what a function closes over: Numba would hash its pickle,
        # which is another one in each process.
        return sig, codegen.magic_tuple()

    def _path(self, folder: Path, key: Any) -> Path:
        # Equal reprs of unequal signatures would share a file, so it holds the key as well.
        return folder / f"{self._name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"


def _write(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all."""
    if not path.parent.exists():
        path.parent.mkdir(exist_ok=True)
        _remove_old(path.parent)
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _remove_old(new: Path) -> None:
    """Remove the folders beside a new one but for the newest; a process that uses one compiles anew."""
    import shutil

    others = [(path.stat().st_mtime, path) for path in new.parent.glob("kernels-*") if path != new]
    for _, path in sorted(others, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
