"""Run the scenarios, print a table, write ``.bench/latest.json``."""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hil.bench import buffer, dead, line_use, load, service, start, uplink

SCENARIOS: dict[str, Callable[[Path, str], Coroutine[Any, Any, dict[str, float]]]] = {
    "start": start.measure,
    "load": load.measure,
    "line_use": line_use.measure,
    "dead": dead.measure,
    "buffer": buffer.measure,
    "uplink": uplink.measure,
    "service": service.measure,
}
AIMS = {
    "cpu_us_per_reading": 40,
    "rss_mb": 42,
    "start_to_first_pack_s": 0.8,
    "wire_bytes_per_reading": 4,
    "flash_bytes_per_reading_offline": 25,
    "flash_bytes_per_reading_online": 0,
    "rtu_line_use_9600": 0.95,
    "rtu_line_use_115200": 0.90,
    "dead_slave_lateness_ratio": 1.10,
    "buffer_bytes_ratio_vs_rows": 0.20,
    "buffer_bytes_ratio_vs_row_commit": 0.001,
    "buffer_cpu_ratio_vs_rows": 0.25,
    "buffer_drain_ratio_vs_rows": 30,
    "buffer_file_ratio_vs_rows": 0.15,
    "buffer_start_s": 0.150,
    "buffer_rss_mb_over_rows": 3,
    "buffer_online_bytes": 0,
    "buffer_online_fsyncs": 0,
    "fsyncs_per_commit": 1.05,
    "drain_ratio_vs_paho": 0.8,
    "drain_ratio_vs_paho_tls": 0.8,
    "cpu_per_pack_ratio_vs_paho": 1.5,
    "cpu_per_pack_ratio_vs_paho_tls": 1.5,
    "alarm_latency_ratio_p50": 2,
    "alarm_latency_ratio_p99": 2,
    "unit_exposure": 1.5,
    "service_memory_refusals": 0,
}
RESULT = Path(".bench/latest.json")


def main() -> None:
    """Run what is named, else all."""
    parser = argparse.ArgumentParser(description="Measure the gateway from outside.")
    parser.add_argument("--polegate", required=True, help="the installed command")
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all if none is named")
    arguments = parser.parse_args()
    figures: dict[str, float] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in arguments.scenario or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="polegate-bench-") as folder:
            figures |= asyncio.run(SCENARIOS[name](Path(folder), arguments.polegate))
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{'figure':<36} {'measured':>10} {'aim':>8}")
    for name, value in figures.items():
        print(f"{name:<36} {value:>10.3g} {AIMS.get(name, ''):>8}")


if __name__ == "__main__":
    main()
