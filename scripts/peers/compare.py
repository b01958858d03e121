"""Lets our engine and its peers take turns, and judges the bars: `make bench-index` starts this by `run`.

The settings of every engine are tuned on one half of the queries and measured on the other. Each turn is a fresh,
pinned process. What a peer builds and its tuning are kept for later runs, ours are not.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bars import BARS, BUILD_AT_MOST, BYTES_AT_MOST, CONTROL, OURS
from bars import CLUSTERED, FAR, FAR_SCAN, ONE, RANDOM, TWO, Case, Judge

HERE = Path(__file__).parent
# The first is the control.
PEERS = [CONTROL, "symqg", "vsag", "svs", "faiss", "scann", "usearch"]
QUICK_PEERS = [CONTROL, "symqg", "faiss"]
# Those of them that can filter.
FILTERING = [CONTROL, "faiss"]
RECALLS = (0.95, 0.99)
# A peer that was so much slower than the best one while tuning takes no part in the rounds.
WORTH_A_TURN = 0.6


@dataclass(frozen=True)
class Choice:
    """The setting that was fastest at a recall while tuning."""

    variant: dict
    setting: object
    rate: float


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.quick = arguments.quick
        self.tier = arguments.tier or best_tier()
        self.peers = QUICK_PEERS if self.quick else PEERS
        self.cache = Path(arguments.cache)
        self.indexes = kept_folder(self.cache / "bench-indexes", f"{self.tier}-{'quick' if self.quick else 'full'}")
        self.folders = {}
        self.sweeps = {}  # (engine, case): the lines of its tuning
        self.turns = {}  # (engine, case, recall): its line of each round

    # One process each

    def call(self, command):
        """Runs a process and returns the JSON lines that it printed; all of them are kept in a file too."""
        environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
        if self.arguments.tier:
            environment["FAISS_SIMD_LEVEL"] = self.tier.upper()
        command = [str(part) for part in command]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        if ended.returncode != 0:
            sys.exit(f"{' '.join(command)}\nfailed with {ended.returncode}:\n{ended.stderr[-3000:]}")
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        with open(self.cache / "bench-index.jsonl", "a", encoding="utf-8") as log:
            for line in lines:
                log.write(json.dumps({**line, "time": round(time.time()), "load": os.getloadavg()[0]}) + "\n")
        return lines

    def folder(self, data):
        if data not in self.folders:
            say(f"preparing the set {data}")
            command = [self.arguments.runner, "prepare", data, self.arguments.data, self.cache / "bench-data"]
            command = [str(part) for part in command + (["quick"] if self.quick else [])]
            ended = subprocess.run(command, capture_output=True, text=True)
            if ended.returncode != 0:
                sys.exit(f"the set {data} cannot be prepared: {ended.stderr[-3000:]}")
            self.folders[data] = Path(ended.stdout.strip())
        return self.folders[data]

    def measure(self, engine, case, options, variant=None):
        options = ["--folder", self.folder(case.data), "--threads", case.threads, *options]
        options += ["--filter", case.filter] if case.filter else []
        if engine == OURS:
            options += ["--plan", case.plan] if case.plan else []
            options += ["--tier", self.tier] if self.arguments.tier else []
            return self.call([self.arguments.runner, "measure", *options])
        options += ["--variant", json.dumps(variant)] if variant is not None else []
        options += ["--quick"] if self.quick else []
        return self.call([sys.executable, HERE / "peers.py", engine, "--indexes", self.indexes, *options])

    # Tuning

    def sweep(self, engine, case):
        """Recall and rate of every setting on the tuning half; two threads search as one does and share a tuning."""
        key = (engine, Case(case.data, 1, case.filter, case.plan))
        if key not in self.sweeps:
            kept = self.indexes / f"tuned-{self.folder(case.data).name}-{engine}-{case.filter}.jsonl"
            if engine != OURS and kept.exists():
                self.sweeps[key] = [json.loads(line) for line in kept.read_text().splitlines()]
                return self.sweeps[key]
            say(f"tuning {engine}: {key[1]}")
            options = ["--half", "tune", "--seconds", 0.1 if self.quick else 0.3, "--enough", 0.993]
            self.sweeps[key] = self.measure(*key, options)
            if engine != OURS:
                kept.write_text("".join(json.dumps(line) + "\n" for line in self.sweeps[key]))
        return self.sweeps[key]

    def choice(self, engine, case, recall):
        reaching = [line for line in self.sweep(engine, case) if line["recall"] >= recall]
        best = max(reaching, key=lambda line: line["cpu_qps"], default=None)
        return best and Choice(best["variant"], best["setting"], best["cpu_qps"])

    def choices(self, entrants, recalls):
        """What each entrant is measured with; who cannot be the best peer of a case at a recall is left out there."""
        found = {
            (engine, case, recall): self.choice(engine, case, recall)
            for engine, case in entrants
            for recall in recalls
        }
        found = {key: choice for key, choice in found.items() if choice}
        best = {}
        for (engine, case, recall), choice in found.items():
            if engine != OURS:
                best[case, recall] = max(choice.rate, best.get((case, recall), 0))
        return {
            (engine, case, recall): choice
            for (engine, case, recall), choice in found.items()
            if engine in (OURS, CONTROL) or choice.rate >= WORTH_A_TURN * best[case, recall]
        }

    # Rounds

    def compare(self, entrants, recalls=RECALLS):
        chosen = self.choices(entrants, recalls)
        rounds = 3 if self.quick else 5
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: {', '.join(sorted({str(case) for _, case, _ in chosen}))}")
            for engine, case in entrants:
                for variant, asked in by_variant(engine, case, chosen):
                    settings = json.dumps([choice.setting for _, choice in asked])
                    options = ["--half", "report", "--seconds", 0.5 if self.quick else 2, "--settings", settings]
                    lines = self.measure(engine, case, options, variant)
                    for (recall, _), line in zip(asked, lines, strict=True):
                        self.turns.setdefault((engine, case, recall), []).append(line)

    def lines(self, engine, case, recall):
        return self.turns.get((engine, case, recall), [])

    def build_ratio(self, case):
        """Seconds of our build over those of the control's, both on two threads and in turn."""
        control = self.choice(CONTROL, case, 0.95)
        if control is None:
            return None
        ours, theirs = [], []
        for _ in range(1 if self.quick or case == CLUSTERED else 3):
            say(f"building: {case.data}")
            options = ["--settings", "[10]", "--seconds", 0.01]
            theirs.append(self.measure(CONTROL, case, [*options, "--rebuild"], control.variant)[0]["build_s"])
            ours.append(self.measure(OURS, case, options)[0]["build_s"])
        return statistics.median(ours) / statistics.median(theirs)

    def bytes_ratio(self, case):
        line = self.sweep(OURS, case)[0]
        return line["bytes"] / line["rows_bytes"]


def kept_folder(root, name):
    """Where indexes and tunings of these very versions and classes are kept; those of others are removed."""
    made_of = b"".join(path.read_bytes() for path in sorted(HERE.glob("requirements*.txt")) + [HERE / "peers.py"])
    folder = root / f"{name}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    for other in root.glob(f"{name}-*"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def by_variant(engine, case, chosen):
    """Settings of one build are measured by one process."""
    grouped = {}
    for (name, of, recall), choice in chosen.items():
        if (name, of) == (engine, case):
            grouped.setdefault(json.dumps(choice.variant), []).append((recall, choice))
    return [(json.loads(variant), asked) for variant, asked in grouped.items()]


def flags():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in fields.items()}


def best_tier():
    present = flags().get("flags", "").split()
    return next((tier for tier, flag in (("avx512", "avx512_vnni"), ("avx2", "avx2")) if flag in present), "scalar")


def say(text):
    print(f"{time.strftime('%T')}  {text}", file=sys.stderr, flush=True)


def print_table(bench):
    processor = flags()
    present = processor.get("flags", "").split()
    known = [flag for flag in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "asimddp") if flag in present]
    model = f"family {processor.get('cpu family')}, model {processor.get('model')}"
    print(f"\n{processor.get('model name')} ({model}), {os.cpu_count()} cores, {' '.join(known)}")
    print(f"tier {bench.tier}, load {os.getloadavg()[0]:.1f}\n")
    columns = "{:<24} {:>4}  {:<12} {:<42} {:>6} {:>7} {:>6} {:>7} {:>6}"
    print(columns.format("case", "at", "engine", "setting", "recall", "QPS", "spread", "build s", "MiB"))
    median = lambda lines: statistics.median(line["qps"] for line in lines)
    order = lambda entry: (str(entry[0][1]), entry[0][2], -median(entry[1]))
    for (engine, case, recall), lines in sorted(bench.turns.items(), key=order):
        rates, last = [line["qps"] for line in lines], lines[-1]
        setting = " ".join([*(f"{key}={value}" for key, value in last["variant"].items()), f"at {last['setting']}"])
        spread = f"{(max(rates) - min(rates)) / median(lines):.0%}"
        built, size = f"{last['build_s']:.1f}", f"{last['bytes'] / 2**20:.0f}"
        figures = f"{last['recall']:.4f}", f"{median(lines):.0f}", spread, built, size
        print(columns.format(str(case), recall, engine, setting, *figures))
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", required=True, help="our benchmark program")
    parser.add_argument("--data", required=True, help="the folder of the Debian set")
    parser.add_argument("--cache", required=True, help="where sets, indexes and all lines are kept")
    parser.add_argument("--tier", default="", help="the tier of kernels to force")
    parser.add_argument("--only", default="", help="one set: debian or clustered")
    parser.add_argument("--quick", action="store_true", help="smaller sets, fewer peers, shorter rounds")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    is_wanted = lambda case: arguments.only in ("", case.data)
    engines = [CONTROL, OURS, *bench.peers[1:]]
    for case in filter(is_wanted, (ONE, TWO, CLUSTERED)):
        bench.compare([(engine, case) for engine in engines])
    if is_wanted(ONE):
        filtered = [(engine, case) for case in RANDOM.values() for engine in (OURS, *FILTERING)]
        bench.compare([(CONTROL, ONE), (OURS, ONE), *filtered, (OURS, FAR), (OURS, FAR_SCAN)], (0.95,))
    judge = Judge(bench.lines, bench.peers, bench.tier)
    verdicts = [judge.speed(bar) for bar in BARS if is_wanted(bar.case)]
    for case in filter(is_wanted, (ONE, CLUSTERED)):
        bytes_ratio, build_ratio = bench.bytes_ratio(case), bench.build_ratio(case)
        verdicts.append(judge.most(f"{case.data} bytes of index and rows over rows", bytes_ratio, BYTES_AT_MOST))
        verdicts.append(judge.most(f"{case.data} build 2 thr over {CONTROL}", build_ratio, BUILD_AT_MOST))
    print_table(bench)
    for verdict in verdicts:
        print(json.dumps(verdict))


if __name__ == "__main__":
    main()
