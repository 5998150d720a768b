"""Seconds that `--executor ray` adds to a run: python benchmarks/ray_overhead.py

Ray starts the workers of a run and asks each for news; chunks go through the run folder, so Ray costs nothing for each.
Actors that do nothing stand in for the workers, all on this machine. Prints one line for each number of actors.
"""

from __future__ import annotations

import time

import ray
from _measure import make_parser

QUESTIONS = 50


class Empty:
    """An actor without work."""

    def news(self) -> str:
        """Answer at once."""
        return ""


def main() -> None:
    parser = make_parser(__doc__, most=16)
    most = parser.parse_args().most
    begun = time.perf_counter()
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20)
    print({"seconds until Ray runs": round(time.perf_counter() - begun, 1)})
    actor, count = ray.remote(num_cpus=0)(Empty), 1
    while count <= most:
        begun = time.perf_counter()
        actors = [actor.remote() for _ in range(count)]
        ray.get([each.news.remote() for each in actors])
        started = time.perf_counter() - begun
        begun = time.perf_counter()
        for _ in range(QUESTIONS):
            ray.get([each.news.remote() for each in actors])
        asked = (time.perf_counter() - begun) / QUESTIONS
        print({"actors": count, "seconds to start": round(started, 2), "ms to ask all": round(1e3 * asked, 2)})
        for each in actors:
            ray.kill(each)
        count *= 4
    ray.shutdown()


if __name__ == "__main__":
    main()
