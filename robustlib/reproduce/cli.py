"""The command ``robustlib``: its commands, options, exit codes and error messages."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from robustlib.reproduce import (
    book_commands,
    course_commands,
    feature_commands,
    library_commands,
)
from robustlib.reproduce.notebooks import PROFILES

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

DESCRIPTION = """\
Robustness of neural networks: attack them, prove them robust, and check every number of the book.

  robustlib verify --network digits_mlp --dataset digits --indices 0:20 --eps 0.05
  robustlib reproduce --profile quick        run every notebook at its small scale
  robustlib check --profile quick            compare what they found with the papers
  robustlib book && robustlib serve          build the book and read it
"""
EXIT_CODES = """\
Exit codes: 0 what was asked is done and holds; 1 it failed or does not hold; 2 bad usage or bad
input; 130 interrupted (the same command goes on where it stopped).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Errors of the input are one line, no traceback."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print(
            "\nrobustlib: interrupted; what had finished is kept, the same command goes on there",
            file=sys.stderr,
        )
        return INTERRUPTED
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        if options.debug:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"robustlib: error: {text}", file=sys.stderr)
        return FAILED if isinstance(error, RuntimeError | ImportError) else BAD_INPUT


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="robustlib",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _reproduce, _check, _book, _serve, _verify, _distortion, _measure, _data, _train, _build,
        _course,
    ):  # fmt: skip
        add(commands)
    return top


def _version() -> str:
    from robustlib import __version__

    return f"robustlib {__version__}"


def _command(
    commands: argparse._SubParsersAction,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    text: str,
    example: str,
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.set_defaults(run=run)
    return made


def _reproduce(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "reproduce",
        book_commands.reproduce,
        "run the notebooks of the book",
        "Run the notebooks; results go to _build/run/PROFILE. A notebook whose code, library and\n"
        "environment did not change since its last run is kept, so an interrupted run goes on\n"
        "where it stopped. Profile quick needs minutes and no download; profile reference is the\n"
        "book's real scale, with MNIST and CIFAR-10.\n"
        "Exit code 1 when a notebook fails; the others still run.",
        "robustlib reproduce --profile quick --only mip/first_verification",
    )
    _profile(made)
    made.add_argument(
        "--only",
        metavar="PART/NAME",
        action="append",
        help="this notebook only; may be given several times",
    )
    made.add_argument("--force", action="store_true", help="run again what could be kept")
    made.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="how many at once (default: one a core, two at most)",
    )
    made.add_argument(
        "--record",
        action="store_true",
        help="also write NAME.ipynb beside its source: the run that the book shows",
    )
    made.add_argument(
        "--prose",
        action="store_true",
        help="run nothing: take changed sentences over into the recorded notebooks",
    )


def _check(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "check",
        book_commands.check,
        "compare what the notebooks recorded with the papers",
        "Compare every claim of book/claims.yml with the recorded reference run and with your\n"
        "last run at a profile. Exit code 0 when all that the profile requires holds, 1 when\n"
        "something does not (named), 2 when claims.yml itself is wrong.",
        "robustlib check --profile quick --json",
    )
    _profile(made)
    _json(made, "print the comparison as a JSON list, one entry a claim")


def _book(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "book",
        book_commands.book,
        "build the book from the recorded runs",
        "Build the static book, with the reproducibility report of your last run at a profile.\n"
        "Nothing is executed, and no network is needed. Exit code 1 when the build has a warning.",
        "robustlib book && robustlib serve",
    )
    _profile(made)


def _serve(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "serve",
        book_commands.serve,
        "show the built book in a browser, on this machine only",
        "Serve the built book on localhost until Ctrl-C.",
        "robustlib serve --port 8000",
    )
    made.add_argument("--port", type=_port, default=8000, help="port (default 8000)")


def _verify(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "verify",
        library_commands.verify,
        "decide for each image whether a network is robust around it",
        "For each image: robust (proved), adversarial (with a checked counterexample),\n"
        "misclassified, or undecided within the time limit. Verdicts are stored as they come, so\n"
        "the same command goes on after an interruption. Exit code 1 when an image is undecided.",
        "robustlib verify --network wk17a --dataset mnist --split test --indices 0:500 \\\n"
        "      --eps 0.1 --norm inf --time-limit 60 --workers 2 --out verdicts.csv",
    )
    made.add_argument(
        "--eps",
        type=_radius,
        required=True,
        help="radius, in the unit of the images (0 to 1); 8/255 is a number too",
    )
    made.add_argument(
        "--method",
        default="cascade",
        help="cascade: cheapest bounds first; mip: the paper's program (default cascade)",
    )
    _images(made, "verdicts.csv", 60.0)


def _distortion(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "distortion",
        library_commands.distortion,
        "find for each image how far the nearest adversarial example is",
        "For each image: the distance of the nearest point with another label, and a proved lower\n"
        "bound of it. Answers are stored as they come, so the same command goes on after an\n"
        "interruption. Exit code 1 when an image is not finished within the time limit.",
        "robustlib distortion --network mlp_2x20 --dataset mnist --indices 0:10 --norm 1 "
        "--out distances.csv",
    )
    _images(made, "distances.csv", 600.0)


def _measure(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "measure",
        library_commands.measure,
        "measure for each image how near a linear program finds an adversarial example",
        "For each image: the pointwise robustness of Bastani et al. in the image's linear region,\n"
        "an upper bound of the distance to the nearest adversarial example, and what all of them\n"
        "say at one radius. Answers are stored as they come, so the same command goes on after an\n"
        "interruption. Exit code 1 when an image is undecided.",
        "robustlib measure --network lenet --dataset mnist --n 1000 --out rho.csv",
    )
    made.add_argument(
        "--method",
        default="lp",
        help="lp; cegar: the authors' program; lbfgs: the paper's baseline (default lp)",
    )
    made.add_argument(
        "--targets",
        default="second",
        help="second: the second most probable label; all: every other one (default second)",
    )
    made.add_argument(
        "--eps",
        type=_radius,
        default=20 / 255,
        help="radius of the frequency and the severity (default 20/255)",
    )
    made.add_argument(
        "--limit", type=_radius, help="look no farther than this radius (default: anywhere)"
    )
    made.add_argument(
        "--alpha", type=float, default=0.0, help="margin of the target's logit (default 0)"
    )
    made.add_argument(
        "--pixels",
        type=_positive,
        metavar="255",
        help="say whether the example survives rounding to whole pixels of so many levels",
    )
    made.add_argument(
        "--form", default="reduced", help="reduced or layered, for lp (default reduced)"
    )
    made.add_argument(
        "--full", action="store_true", help="all inequalities at once, for lp, not lazily"
    )
    _which_images(made)
    _workers(made, "rho.csv")


def _images(made: argparse.ArgumentParser, out: str, time_limit: float) -> None:
    """The options of a command that answers a question for each of many images."""
    _which_images(made)
    made.add_argument("--norm", default="inf", help="norm of the change: inf, 1 or 2 (default inf)")
    made.add_argument(
        "--time-limit",
        type=float,
        default=time_limit,
        metavar="SECONDS",
        help=f"for one image (default {time_limit:.0f})",
    )
    _workers(made, out)


def _which_images(made: argparse.ArgumentParser) -> None:
    made.add_argument("--network", required=True, help="a network of the zoo, for example wk17a")
    made.add_argument("--dataset", required=True, help="mnist, cifar10, digits or shapes")
    made.add_argument("--split", default="test", help="train or test (default test)")
    which = made.add_mutually_exclusive_group()
    which.add_argument(
        "--indices",
        type=library_commands.indices,
        default=range(10),
        metavar="0:100",
        help="which images: 0:100, or 3,7,9 (default 0:10)",
    )
    which.add_argument(
        "--n",
        type=lambda text: range(_positive(text)),
        dest="indices",
        metavar="N",
        help="the first N images",
    )


def _workers(made: argparse.ArgumentParser, out: str) -> None:
    """Who works on the images, and where the answers go."""
    made.add_argument(
        "--solver",
        default="highs",
        help="highs, scip or cvxpy; for cegar highs or clarabel (default highs)",
    )
    made.add_argument(
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="processes of this machine, one thread each (default 1)",
    )
    made.add_argument(
        "--dask", metavar="tcp://HOST:PORT", help="work on the cluster of this Dask scheduler"
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help=f"the table, one row an image (default {out})",
    )
    made.add_argument(
        "--store", type=Path, help="where answers are kept (default: OUT with the suffix .sqlite)"
    )
    _json(made, "also print the rows as a JSON list")


def _data(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "data",
        library_commands.data,
        "what data is at hand, and how to get more",
        "status: which data sets are there, where, how large, and whether their checksums fit\n"
        "(exit code 1 when a file is damaged). download NAME: fetch one. The folder is\n"
        "ROBUSTLIB_DATA if that is set, else your cache folder.",
        "robustlib data status\n  robustlib data download mnist",
    )
    made.add_argument("action", choices=("status", "download"))
    made.add_argument("name", nargs="?", help="a data set, or a network of other authors")
    _json(made, "print the status as a JSON list")


def _train(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "train",
        library_commands.train,
        "train a network of the zoo, or of the chapters on features, again",
        "Train a network by its recipe; the checkpoint and its record are written to a folder.\n"
        "The networks of the chapters on features are rows of a table. What a row needs, networks\n"
        "and data sets, is made first, in the folder where the chapters look for it. What is\n"
        "there is kept, and an interrupted command goes on where it stopped.",
        "robustlib train --list\n  robustlib train digits_mlp --out _build/checkpoints\n"
        "  robustlib train mislabeled_random --seed 1",
    )
    made.add_argument("name", nargs="?", help="the network")
    made.add_argument("--list", action="store_true", help="list the recipes")
    made.add_argument(
        "--out",
        type=Path,
        help=f"folder (default _build/checkpoints, for the chapters on features "
        f"{feature_commands.FOLDER})",
    )
    made.add_argument("--seed", type=_seed, help="for the chapters on features (default 0)")
    _json(made, "print the list as JSON")


def _build(commands: argparse._SubParsersAction) -> None:
    made = _command(
        commands,
        "build",
        feature_commands.build,
        "build a robust, non-robust or mislabeled data set from a network",
        "Build a data set of Ilyas et al. (2019): images that a network represents as it does the\n"
        "original ones (robust: from an adversarially trained network; nonrobust: from one of\n"
        "standard training), or perturbed images under wrong labels (random, deterministic).\n"
        "Defaults are the paper's. An interrupted command goes on where it stopped;\n"
        "robustlib.features.load reads the folder.",
        "robustlib build random --network digits_mlp_standard --dataset digits --eps 1 \\\n"
        "      --step-size 0.2 --steps 20 --out sets/random",
    )
    made.add_argument("recipe", choices=feature_commands.RECIPES)
    made.add_argument(
        "--network",
        required=True,
        help="a network of the zoo, or one of the chapters on features that was trained here",
    )
    made.add_argument("--dataset", required=True, help="mnist, cifar10, digits or shapes")
    made.add_argument("--split", default="train", help="train or test (default train)")
    which = made.add_mutually_exclusive_group()
    which.add_argument(
        "--indices",
        type=library_commands.indices,
        metavar="0:100",
        help="which images: 0:100, or 3,7,9 (default all)",
    )
    which.add_argument(
        "--n",
        type=lambda text: range(_positive(text)),
        dest="indices",
        metavar="N",
        help="the first N images",
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the data set")
    made.add_argument(
        "--network-seed", type=_seed, default=0, help="which of the trained networks (default 0)"
    )
    made.add_argument(
        "--runs",
        type=Path,
        default=feature_commands.FOLDER,
        help=f"where `robustlib train` put them (default {feature_commands.FOLDER})",
    )
    for name, kind, text in feature_commands.SETTINGS:
        option = "--" + name.replace("_", "-")
        if kind is bool:
            made.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            reader = _radius if kind is float else kind
            made.add_argument(option, type=reader, default=argparse.SUPPRESS, help=text)
    _json(made, "print the folder and the report as JSON")


def _course(commands: argparse._SubParsersAction) -> None:
    top = commands.add_parser(
        "course",
        help="release assignments, and grade what students hand in",
        description="Release assignments, and grade what students hand in.",
        epilog="example:\n  robustlib course release --assignment linear_regions\n"
        "  robustlib course grade submissions --assignment linear_regions --out grades.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    made = _command(
        parts,
        "release",
        course_commands.release,
        "make the students' notebooks, the autograders and the solutions",
        "Make the student's notebook, the autograder and the solution of each assignment, and\n"
        "check them: the solution has to earn all points, the blank notebook none. Exit code 1\n"
        "when that does not hold.",
        "robustlib course release --assignment linear_regions",
    )
    made.add_argument("--assignment", metavar="NAME", help="this one only (default: all)")
    made.add_argument("--out", type=Path, help="folder (default _build/assignments)")
    made.add_argument("--no-check", action="store_true", help="make them without the check")
    made = _command(
        parts,
        "grade",
        course_commands.grade,
        "grade a folder of submissions",
        "Grade every notebook or exported zip file in a folder: a table with one row a student,\n"
        "and one page of feedback a student in the folder OUT_feedback. Grading RUNS THE\n"
        "STUDENTS' CODE with your rights: use an account or container that may be thrown away.\n"
        "What was graded is kept beside the table, so the same command goes on after an\n"
        "interruption. Exit code 1 when a submission could not be graded to its end.",
        "robustlib course grade submissions --assignment linear_regions --out grades.csv",
    )
    made.add_argument("submissions", type=Path, metavar="SUBMISSIONS", help="the folder")
    made.add_argument("--assignment", metavar="NAME", required=True, help="which one it is")
    made.add_argument(
        "--out", type=Path, default=Path("grades.csv"), help="the table (default grades.csv)"
    )
    made.add_argument(
        "--releases", type=Path, help="folder of the releases (default _build/assignments)"
    )
    made.add_argument(
        "--time-limit",
        type=_above_zero,
        default=300.0,
        metavar="SECONDS",
        help="of processor time for one submission; three times as many of wall time (default 300)",
    )
    made.add_argument(
        "--memory",
        type=_above_zero,
        default=4.0,
        metavar="GIB",
        help="for one process of a submission (default 4)",
    )
    made.add_argument(
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="how many at once (default 1)",
    )
    made.add_argument(
        "--allow-root", action="store_true", help="grade as root, in a throw-away container"
    )


def _profile(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--profile",
        type=_known_profile,
        metavar="{" + ",".join(PROFILES) + "}",
        default="quick",
        help="scale of the run: quick or reference (default quick)",
    )


def _known_profile(text: str) -> str:
    if text not in PROFILES:
        from robustlib import checks  # imports torch: only where it is needed

        try:
            checks.choice("profile", text, PROFILES)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _json(made: argparse.ArgumentParser, text: str) -> None:
    made.add_argument("--json", action="store_true", help=text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _radius(text: str) -> float:
    """A number, or a quotient of two such as 8/255."""
    top, _, bottom = text.partition("/")
    try:
        return float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; write 0.1 or 8/255") from None


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
