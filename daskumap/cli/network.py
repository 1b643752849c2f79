"""`daskumap train | predict | export`: a network on the graph of a run, and what only such a run can do."""

from __future__ import annotations

from typing import Any

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.output import say
from daskumap.cli.results import make, show


def add_commands(commands: Any) -> None:
    """Add these commands to the parser's."""
    train = commands.add_parser("train", help="train a network on the graph of a finished run, to map rows")
    train.add_argument("run", help="path or URL of the run store whose graph it is")
    train.add_argument("out", help="path or URL of the trained run; an unfinished training there goes on")
    train.add_argument(
        "--labels", metavar="FILE", help="a NumPy file or Zarr array: a class for each row, -1 for none"
    )
    train.add_argument(
        "--landmarks", metavar="FILE", help="a NumPy file or Zarr array: a place for each row, NaN for none"
    )
    train.add_argument(
        "--decoder", action="store_const", const=True, help="train the way back too, for `daskumap inverse`"
    )
    train.add_argument("--steps", type=int, help="6,000 if left out")
    train.add_argument("--seed", type=int, dest="random_state", help="the same seed gives the same bits")
    shared.add_results(train)
    shared.add_settings(train, "daskumap.train")
    shared.add_machine(train)
    shared.add_driver(train)
    train.add_argument("--restart", action="store_true", help="delete the run that is in OUT, and start over")
    shared.add_take_over(train)
    shared.add_trust_input(train)
    train.set_defaults(command=run_train)

    predict = commands.add_parser("predict", help="classify rows by a network that was trained with labels")
    predict.add_argument("run", help="path or URL of a trained run, or of a saved network")
    predict.add_argument("source", help="path or URL of a Zarr array (m, D) with the columns of the fit's")
    shared.add_result(predict, fitted=False)
    predict.set_defaults(command=run_predict)

    export = commands.add_parser("export", help="write a network as ONNX, for other programs")
    export.add_argument("run", help="path or URL of a trained run, or of a saved network")
    export.add_argument("file", help="the file to write, such as encoder.onnx")
    export.set_defaults(command=run_export)


def run_train(options: dict[str, Any]) -> None:
    """Train and show the report."""
    run, out, quiet, scheduler = (options.pop(name) for name in ("run", "out", "quiet", "scheduler"))
    result = daskumap.train(run, out, client=scheduler, progress=not quiet, **shared.as_params(options))
    if not quiet:
        show(result, out)


def run_predict(options: dict[str, Any]) -> None:
    """Classify rows and say where their classes are."""
    make(daskumap.predict, options, "source")


def run_export(options: dict[str, Any]) -> None:
    """Export a network and say where it is."""
    found = daskumap.open(options["run"])
    encoder = found if isinstance(found, daskumap.Encoder) else found.encoder
    files = encoder.export_onnx(options["file"])
    say("\n".join([repr(encoder), "", *(f"{'exported':<21}{file}" for file in files)]))
