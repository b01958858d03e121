"""What is claimed of our engine, and how the claims are judged.

A ratio is that of medians over rounds; what counts is its lower bound, from a bootstrap over the rounds. A ratio of
rates during which the control drifted is void.
"""

import random
import statistics
from dataclasses import dataclass

OURS = "vectorsphere"
CONTROL = "hnswlib"
# A median of the control's rounds may differ from each of them by this much.
DRIFT_AT_MOST = 0.05


@dataclass(frozen=True)
class Case:
    """Searches that can be compared with each other."""

    data: str
    threads: int
    filter: str = ""
    plan: str = ""  # of ours alone: "scan" reads all matches, "" is as users get it

    def __str__(self):
        return " ".join(part for part in (self.data, self.filter, self.plan, f"{self.threads} thr") if part)


@dataclass(frozen=True)
class Bar:
    """Our rate over a rival's reaches the ratio of the processor's tier."""

    case: Case
    recall: float
    against: str  # a peer, "best" of them, "unfiltered" or "better plan": of ours
    ratios: dict

    def __str__(self):
        return f"{self.case} recall {self.recall} over {self.against}"


def any_tier(ratio):
    return {"avx512": ratio, "avx2": ratio}


ONE, TWO = Case("debian", 1), Case("debian", 2)
CLUSTERED = Case("clustered", 1)
RANDOM = {percent: Case("debian", 1, f"random-{percent}") for percent in (1, 10, 50)}
FAR = Case("debian", 1, "far-5")
FAR_SCAN = Case("debian", 1, "far-5", "scan")

BARS = [
    Bar(ONE, 0.95, CONTROL, {"avx512": 4.0, "avx2": 3.2}),
    Bar(ONE, 0.99, CONTROL, {"avx512": 4.4, "avx2": 3.8}),
    Bar(ONE, 0.95, "best", {"avx512": 1.1, "avx2": 1.2}),
    Bar(ONE, 0.99, "best", {"avx512": 1.1, "avx2": 1.4}),
    Bar(TWO, 0.95, "best", any_tier(1.1)),
    Bar(TWO, 0.99, "best", any_tier(1.1)),
    Bar(CLUSTERED, 0.95, CONTROL, any_tier(4.0)),
    Bar(CLUSTERED, 0.99, CONTROL, any_tier(6.0)),
    Bar(RANDOM[1], 0.95, "unfiltered", any_tier(0.8)),
    Bar(RANDOM[10], 0.95, "unfiltered", any_tier(0.35)),
    Bar(RANDOM[50], 0.95, "unfiltered", any_tier(0.5)),
    Bar(RANDOM[1], 0.95, "best", any_tier(1.0)),
    Bar(RANDOM[10], 0.95, "best", any_tier(1.0)),
    Bar(RANDOM[50], 0.95, "best", any_tier(1.0)),
    Bar(FAR, 0.95, "better plan", any_tier(0.5)),
]
# Seconds of our build on two threads over those of the control's.
BUILD_AT_MOST = 0.6
# Bytes of index and rows over those of the rows as f32.
BYTES_AT_MOST = 1.15


class Judge:
    """Judges by `turns`, which gives what an engine printed in a case for a recall, a line for each round."""

    def __init__(self, turns, peers, tier):
        self.turns, self.peers, self.tier = turns, peers, tier

    def rates(self, engine, case, recall):
        return [line["qps"] for line in self.turns(engine, case, recall)]

    def speed(self, bar):
        ours = self.rates(OURS, bar.case, bar.recall)
        rivals = [self.rates(engine, case, bar.recall) for engine, case in self.rivals(bar)]
        ratios = [bootstrap(ours, rival) for rival in rivals if rival and ours]
        # The rival that is hardest to beat decides.
        ratio, at_least = min(ratios, key=lambda pair: pair[1], default=(None, None))
        target = bar.ratios.get(self.tier)
        is_met = None not in (at_least, target) and at_least >= target
        void = at_least is None or self.drifted(bar.case, bar.recall)
        # Tuned on the other half, the recall may come out a little lower here.
        recall = min((line["recall"] for line in self.turns(OURS, bar.case, bar.recall)), default=None)
        bounds = {"target": target, "at_least": rounded(at_least), "recall": rounded(recall)}
        return self.verdict(str(bar), ratio, is_met, void, **bounds)

    def rivals(self, bar):
        case = bar.case
        if bar.against == "best":
            return [(peer, case) for peer in self.peers]
        if bar.against == "unfiltered":
            return [(OURS, Case(case.data, case.threads))]
        if bar.against == "better plan":
            # Far from the query a walk finds nothing, so reading the matches is the better plan.
            return [(OURS, FAR_SCAN)]
        return [(bar.against, case)]

    def drifted(self, case, recall):
        rates = self.rates(CONTROL, Case(case.data, case.threads), recall)
        median = statistics.median(rates) if rates else 0
        return not rates or max(abs(rate / median - 1) for rate in rates) > DRIFT_AT_MOST

    def most(self, name, ratio, target):
        """A ratio that must not be larger, measured once: sizes and builds."""
        is_met = ratio is not None and ratio <= target
        return self.verdict(name, ratio, is_met, ratio is None, target=target, at_most=rounded(ratio))

    def verdict(self, name, ratio, is_met, is_void, **bounds):
        return {"bar": name, "tier": self.tier, "ratio": rounded(ratio), **bounds, "met": is_met, "void": is_void}


def rounded(ratio):
    return None if ratio is None else round(ratio, 3)


def bootstrap(ours, theirs):
    """The ratio of the medians, and the value that 95 % of the ratios of resampled rounds exceed."""
    draw = random.Random(1)
    ratios = sorted(
        statistics.median(draw.choices(ours, k=len(ours))) / statistics.median(draw.choices(theirs, k=len(theirs)))
        for _ in range(5000)
    )
    return statistics.median(ours) / statistics.median(theirs), ratios[len(ratios) // 20]
