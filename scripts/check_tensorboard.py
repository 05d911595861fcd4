#!/usr/bin/env python3
"""Checks that TensorBoard reads the event files of `fedtune run --tensorboard` and finds the report's figures in them.

Must not trust its own reading of the format: the files are read by the `tensorboard` package alone.

    check_tensorboard.py EVENTS RESULTS

EVENTS is the folder of one run, RESULTS its `results.json`. The exit code is 1 where a figure is missing or another.
"""

import json
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main(folder, results):
    events = EventAccumulator(str(folder)).Reload()
    rounds = json.loads(results.read_text())["rounds"]
    for tag, field in (("accuracy", "accuracy"), ("loss", "loss"), ("client_flops/round", "clientFlops")):
        compare(tag, events.Scalars(tag), [(entry["round"], entry[field]) for entry in rounds])
    for way in ("up", "down"):
        sums = [(r["round"], sum(c["payload"] for c in r["bytes"] if c["direction"] == way)) for r in rounds]
        compare(f"payload_bytes/{way}", events.Scalars(f"payload_bytes/{way}"), sums)
    print(f"{folder}: {len(rounds)} rounds, tags {', '.join(sorted(events.Tags()['scalars']))}")


def compare(tag, found, expected):
    if [point.step for point in found] != [step for step, _ in expected]:
        sys.exit(f"{tag} has steps {[point.step for point in found]}")
    for point, (step, value) in zip(found, expected):
        # Scalars are 32-bit floats.
        if abs(point.value - value) > 1e-6 * abs(value):
            sys.exit(f"{tag} is {point.value} in round {step}, and the report says {value}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
