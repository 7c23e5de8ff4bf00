"""The command line of the contract; problems go to standard error, one a line, and make the exit code 1."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from config.document import Invalid
from contract.new import Refused, write_model
from contract.retraining import BadTrigger, Trigger, retraining_input
from contract.run import STEPS, StepFailed, run
from contract.verify import deployed_from, repository_root, verify

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it held, 1 when something is to be corrected, 2 when it was called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except Invalid as error:
        count = len(error.problems)
        print(f"{error}\n{count} {'problem' if count == 1 else 'problems'}", file=sys.stderr, flush=True)
        return 1
    except (BadTrigger, Refused, StepFailed) as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="contract", description="What data scientists and platform agree on.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    checked = commands.add_parser("verify", help="check a model's folder and pack it, as the pipeline does")
    checked.add_argument("folder", type=_folder, metavar="FOLDER", help="model_code/<name>, or the name")
    checked.add_argument("--bundles", type=Path, help="write the bundle below this folder, as <slug>/<sha256>/")
    checked.add_argument("--retraining-input", type=Path, metavar="FILE",
                         help="write the retraining input, from COMMIT, TRIGGER, … of the environment")  # fmt: skip
    checked.set_defaults(command=_verify)
    new = commands.add_parser("new", help="write a model folder that passes Verify")
    new.add_argument("name")
    new.set_defaults(command=_new)
    ran = commands.add_parser("run", help="run a model's steps on this machine, without the cloud")
    ran.add_argument("model")
    ran.add_argument("--step", choices=STEPS, help="only this step, on what the steps before it left")
    ran.add_argument("--sample", action="store_true", help="on the first days of data only: seconds")
    ran.add_argument("--as-of", metavar="YYYY-MM-DD", help="the cut-off date (default: the newest day of the data)")
    ran.set_defaults(command=_run)
    return parser


def _folder(text: str) -> Path:
    return Path(text) if "/" in text else ROOT / "model_code" / text


def _verify(options: argparse.Namespace) -> None:
    began = time.monotonic()
    root = repository_root(options.folder)
    trigger = Trigger.read(os.environ) if options.retraining_input else None
    name = Path(os.path.abspath(options.folder)).name
    print(f"verify {name}", flush=True)
    verified = verify(root, name, deployed=deployed_from(os.environ), say=_say)
    model, bundle = verified.model, verified.bundle
    if options.bundles:
        bundle.write(options.bundles / model.slug)
    if trigger:
        content = retraining_input(model, trigger, bundle)
        options.retraining_input.write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"{model.name} passes: bundle {bundle.sha256[:12]}, {len(bundle.sourcedir) / 1000:.0f} kB, "
          f"{time.monotonic() - began:.1f} s")  # fmt: skip


def _new(options: argparse.Namespace) -> None:
    folder = write_model(ROOT, options.name)
    print(f"{folder.relative_to(ROOT)} is written. Next: ./pushline run {options.name} --sample, "
          f"./pushline verify {options.name}, one cdk deploy, and git push.")  # fmt: skip


def _run(options: argparse.Namespace) -> None:
    run(ROOT, options.model, step=options.step, sample=options.sample, as_of=options.as_of, say=_say)


def _say(text: str) -> None:
    print(text, flush=True)
