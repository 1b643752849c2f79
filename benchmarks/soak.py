"""Drivers and workers that are killed at random moments, on all engines: the same bits, or the right error.

    python benchmarks/soak.py [--minutes 6] [--seed 1] [--folder DIR]

A driver begins a fit, a resume, a `verify --repair` of a store in which a bit was flipped, or a restart with
another parameter, and is killed by SIGKILL; with two worker processes one of those may die instead. What it
leaves is handed to the next driver, and at times brought to its end undisturbed: the bits have to be those of
a run that nothing disturbed, or the error has to name the damage and `verify --repair` has to mend it. Ends
with 1 if anything else was seen.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import zarr
from compare import ROOT

sys.path.append(str(ROOT))

import daskumap
from daskumap.errors import DaskumapError, StoreError
from daskumap.testing.datasets import uneven_clusters

ENGINES, ACTS = ("sequential", "threads", "two processes"), ("fit", "resume", "verify --repair", "restart")
PARAMS = {"random_state": 1, "n_epochs": 40, "checkpoint_every": 5, "max_cell_rows": 512, "progress": False}
# What a restart changes, so that its map is another one.
DISTANCES = (0.1, 0.5)
# Share of the kills after which a run is brought to its end; the others meet what several deaths left.
SETTLED = 0.4
# Where one of two workers may die instead of the driver.
WORKER_DIES = 0.5


def act(kind: str, source: Path, place: Path, client: Any, distance: float) -> None:
    """Do what a driver does; its errors go nowhere, since what counts is what it leaves."""
    with contextlib.suppress(DaskumapError):
        if kind == "resume":
            daskumap.resume(place, client=client, progress=False)
        elif kind == "verify --repair":
            daskumap.verify(place, repair=True)
        else:
            options = {"restart": kind == "restart", "min_dist": distance, "client": client}
            daskumap.fit(source, place, **options, **PARAMS)


def digest(run: Any) -> str:
    """Return a digest of a map."""
    return hashlib.sha256(run.embedding[:].tobytes()).hexdigest()[:16]


def flip(place: Path, chance: random.Random) -> None:
    """Flip a bit of a chunk, or of a document of the ledger."""
    files = [path for path in place.rglob("*") if path.is_file() and path.suffix != ".partial"]
    files = sorted(path for path in files if "/c/" in str(path) or "/ledger/" in str(path))
    if files:
        path = chance.choice(files)
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(content))


class Soak:
    """Kills, and looks at what is left."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.source, self.place = folder / "data.zarr", folder / "run.zarr"
        zarr.create_array(str(self.source), data=uneven_clusters(1000, 8, 6, seed=3).rows(), chunks=(500, 8))
        self.kills, self.ends, self.wrong = Counter[tuple[str, str]](), Counter[str](), list[str]()
        self.bits, self.seconds = dict[float, str](), 0.0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["distributed", "daskumap.api", "sklearn.cluster"])

    def undisturbed(self) -> None:
        """Take the bits of runs that nothing disturbs."""
        for distance in DISTANCES:
            started = time.monotonic()
            run = daskumap.fit(self.source, None, client="sequential", min_dist=distance, **PARAMS)
            self.bits[distance], self.seconds = digest(run), time.monotonic() - started

    def go_on(self, cluster: Any, until: float) -> None:
        """Kill one after another."""
        number = 0
        while time.monotonic() < until:
            self.once(ENGINES[number % len(ENGINES)], cluster)
            number += 1

    def once(self, engine: str, cluster: Any) -> None:
        """Let one driver begin, and kill it or one of its workers."""
        there = (self.place / "zarr.json").exists()
        kind = self.chance.choice(ACTS) if there else "fit"
        if kind == "fit":
            self.leave()
        if kind == "verify --repair":
            flip(self.place, self.chance)
        client = cluster.scheduler_address if engine == "two processes" else engine
        arguments = (kind, self.source, self.place, client, self.chance.choice(DISTANCES))
        driver = self.context.Process(target=act, args=arguments)
        driver.start()
        # Long runs are killed late, too; `verify` is short.
        driver.join(self.chance.uniform(0.0, 0.3 if kind == "verify --repair" else 1.2 * self.seconds))
        if driver.is_alive():
            self.kills[engine, kind] += 1
            if engine == "two processes" and self.chance.random() < WORKER_DIES:
                self.kill_worker(cluster)
                driver.join(self.chance.uniform(0.0, self.seconds))
            driver.kill()
        driver.join()
        if self.chance.random() < SETTLED:
            self.settle(f"{kind} on {engine}")

    def leave(self) -> None:
        """Go to another place: workers of a dead driver may still write to the last one."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place = self.folder / f"run-{self.chance.getrandbits(40):010x}.zarr"

    def kill_worker(self, cluster: Any) -> None:
        """Kill one of the two worker processes; its nanny brings another."""
        pids = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(pids), signal.SIGKILL)

    def settle(self, after: str) -> None:
        """Bring what is there to its end, and compare."""
        if not (self.place / "zarr.json").exists():
            self.ends["nothing had begun"] += 1
            return
        try:
            run = daskumap.resume(self.place, client="sequential", progress=False)
            self.ends["the same bits"] += 1
        except DaskumapError as error:
            if not isinstance(error, StoreError) or "verify --repair" not in str(error):
                self.wrong.append(f"{after}: {error}")
                self.leave()
                return
            daskumap.verify(self.place, repair=True)
            run = daskumap.resume(self.place, client="sequential", progress=False)
            self.ends["damage named, then mended by verify --repair"] += 1
        if digest(run) != self.bits[run.params["min_dist"]]:
            self.wrong.append(f"{after}: other bits")
        if daskumap.verify(self.place, repair=True):
            self.ends["more damage found by verify, and mended"] += 1
            if digest(daskumap.resume(self.place, client="sequential", progress=False)) != digest(run):
                self.wrong.append(f"{after}: other bits after a repair")

    def report(self) -> str:
        """Return the counts as a table."""
        lines = [f"| engine | {' | '.join(ACTS)} |", "|---|" + "---:|" * len(ACTS)]
        for engine in ENGINES:
            counts = [str(self.kills[engine, kind]) for kind in ACTS]
            lines.append(f"| {engine} | {' | '.join(counts)} |")
        ends = [f"{count} x {end}" for end, count in self.ends.most_common()]
        return "\n".join(
            [*lines, "", f"{sum(self.kills.values())} kills; ends: {', '.join(ends)}", *self.wrong]
        )


def main() -> None:
    """Run the soak."""
    from distributed import LocalCluster

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as folder:
        soak = Soak(Path(folder), options.seed)
        soak.undisturbed()
        with LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="2GB", dashboard_address=None, silence_logs=50
        ) as cluster:
            soak.go_on(cluster, time.monotonic() + 60 * options.minutes)
    sys.stdout.write(f"{soak.report()}\n")
    sys.exit(bool(soak.wrong))


if __name__ == "__main__":
    main()
