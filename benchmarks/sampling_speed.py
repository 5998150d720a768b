"""Seconds to sample a batch of clips on a CPU, against a plain loop: python benchmarks/sampling_speed.py [--steps 4]

The plain loop runs the shipped model eagerly, calls it twice a step for guidance, and embeds the caption at each call.
The others are `DiffusionSampler`, eager and with compiled blocks. All take the same solver and noise, and must give
equal clips up to rounding. Timed in turn, after one untimed call each. Prints one JSON line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from _measure import CPU, make_parser, matmul_rate, print_report, time_interleaved
from torch import Tensor

from vfbench import plugins
from vfbench.diffusion.sampler import DiffusionSampler
from vfbench.diffusion.schedule import Prediction, clip_x0
from vfbench.diffusion.solvers import solve
from vfbench.interfaces import BuildContext, Clips, Conditioning, Request, derive_seed
from vfbench.pipeline.compiling import compile_blocks
from vfbench.pipeline.cost import measure
from vfbench.video import to_uint8

MAX_DIFFERENCE = 0.5  # mean grey levels between clips that differ by rounding alone


def main() -> None:
    parser = make_parser(__doc__, model="videofusion", steps=4, guidance=2.0, batch_size=32, repeats=3)
    arguments = parser.parse_args()
    data = plugins.load("dataset", "shapes")
    rows = range(arguments.batch_size)
    given = zip(data.labels("test", rows), data.captions("test", rows), strict=True)
    requests = [Request(i, derive_seed(0, i), label, caption) for i, (label, caption) in enumerate(given)]
    spec = plugins.Spec(arguments.model, {"steps": arguments.steps, "guidance": arguments.guidance})

    def build() -> DiffusionSampler:
        sampler: DiffusionSampler = plugins.load("model", spec, BuildContext(data, CPU))
        return sampler

    eager, compiled = build(), build()
    compile_blocks(arguments.model, compiled, CPU)
    variants: dict[str, Callable[[], Clips]] = {
        "plain loop": partial(plain_loop, eager, requests),
        "vfbench": partial(eager.sample, requests),
        "vfbench --compile": partial(compiled.sample, requests),
    }
    made = {name: variant().float() for name, variant in variants.items()}  # also the untimed calls
    for name, clips in made.items():
        if (difference := float((clips - made["plain loop"]).abs().mean())) > MAX_DIFFERENCE:
            raise SystemExit(f"{name} makes other clips than the plain loop: {difference:.2f} grey levels apart")
    runs = time_interleaved(variants, arguments.repeats)
    seconds = {name: timed.median for name, timed in runs.items()}
    flops = measure(eager, requests[0]).flops_per_clip * len(requests)
    print_report(
        {
            **vars(arguments),
            "seconds_per_clip": {name: round(value / len(requests), 4) for name, value in seconds.items()},
            "times_the_plain_loop": {name: round(seconds["plain loop"] / value, 2) for name, value in seconds.items()},
            "share_of_matrix_rate": {
                name: round(flops / value / matmul_rate(CPU), 2) for name, value in seconds.items()
            },
        }
    )


@torch.inference_mode()
def plain_loop(sampler: DiffusionSampler, requests: Sequence[Request]) -> Clips:
    """Clips of the requests, made the simplest way."""
    model, sampling = sampler.model, sampler.sampling
    labels, captions = [request.label for request in requests], [request.prompt for request in requests]

    def condition(kind: Conditioning) -> Tensor:
        vectors: Tensor = model.condition(labels, captions, [kind] * len(requests))
        return vectors

    def denoise(z: Tensor, t: int) -> Prediction:
        times = torch.full((len(requests),), t)
        prediction = model.predict(z, times, condition("text"))
        if sampler.guidance != 1:
            pairs = zip(model.predict(z, times, condition("none")), prediction, strict=True)
            prediction = Prediction(*(torch.lerp(without, with_, sampler.guidance) for without, with_ in pairs))
        return clip_x0(prediction, z, model.schedule.at(times, z), sampling.threshold)

    prior = model.sampling_prior(condition("text"))
    noise = sampler.window_plan.noise(prior, model.config.shape, requests, CPU, sampler.noise_generator)
    x = solve(denoise, noise(), model.schedule, steps=sampler.steps, solver=sampling.solver, fresh_noise=noise)
    return to_uint8(x / 2 + 0.5)


if __name__ == "__main__":
    main()
