"""The table that `make bench` ends with: ours, theirs, and their ratio, each pair timed in this one run."""

from collections import defaultdict


def pytest_terminal_summary(terminalreporter, config):
    """Group the timings by benchmark group; in a group, `ours` is compared with the fastest of the others."""
    groups = defaultdict(dict)
    for timing in config._benchmarksession.benchmarks:
        time = timing.stats.min / timing.extra_info.get("draws", 1)
        groups[timing.group][timing.params["who"]] = time, timing.extra_info.get("flops")
    write = terminalreporter.write_line
    terminalreporter.section("ratios (fastest round of each)")
    write(f"{'what':<56}{'ours':>12}{'theirs':>12}{'ratio':>9}  theirs is")
    for what, timings in groups.items():
        ours, flops = timings.pop("ours")
        if flops:
            write(f"{what:<56}{seconds(ours):>12}{flops / ours / 1e9:>21.0f} GFLOP/s")
        for theirs, (time, _) in sorted(timings.items(), key=lambda item: item[1][0]):
            write(f"{what:<56}{seconds(ours):>12}{seconds(time):>12}{time / ours:>8.1f}×  {theirs}")


def seconds(time: float) -> str:
    return f"{time:.2f} s" if time >= 1 else f"{time * 1e3:.1f} ms"
