"""Warns if a sampler gives the two streams different noise."""

import logging
from typing import Any

from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ..drift import Drift
from .keys import RUN
from .run import Run

DRIFT = "infinite_id_drift"


def watch_sampler(
    executor: WrapperExecutor,
    guider: Any,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Any,
    noise: Tensor,
    latent_image: Tensor | None = None,
    denoise_mask: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Watch a sampler. Log a warning if it drew other noise for the text stream.

    Wraps SAMPLER_SAMPLE. The samples `(rows, c, h, w)` are returned as they are.
    """
    options = extra_args["model_options"]["transformer_options"]
    run: Run | None = options.get(RUN)
    call = (guider, sigmas, extra_args, callback, noise, latent_image, denoise_mask, *args)
    if run is None or run.noise is None:
        return executor(*call, **kwargs)
    drift = options[DRIFT] = Drift(run.streams, noise, denoise_mask)
    if latent_image is not None:  # the streams differ in it if a run goes on
        drift.explain(latent_image)
    samples = executor(*call, **kwargs)
    drift.see(samples)
    if run.noise.is_doubtful or drift.is_foreign():
        sampler = executor.class_obj
        name = getattr(
            getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__
        )
        logging.warning(
            "Infinite-ID: the sampler '%s' draws random numbers in a way that cannot be shared, so "
            "the two streams had different noise, and the picture is not the one it should be. "
            "Choose another sampler or noise, or %s.",
            name,
            "draw the identities one by one"
            if run.streams.people > 1
            else "switch on shared_latents in Infinite-ID Save Time",
        )
    return samples


def watch_noise(
    executor: WrapperExecutor,
    x: Tensor,
    timestep: Tensor,
    model_options: Any,
    *args: Any,
    **kw: Any,
) -> Tensor:
    """Note the sampler's latents and the prediction for them, both `(rows, c, h, w)`.

    Wraps PREDICT_NOISE.
    """
    drift: Drift | None = model_options["transformer_options"].get(DRIFT)
    if drift is None:
        return executor(x, timestep, model_options, *args, **kw)
    drift.see(x)
    denoised = executor(x, timestep, model_options, *args, **kw)
    drift.explain(denoised)
    return denoised


def watch_conds(
    executor: WrapperExecutor,
    model: Any,
    conds: list[Any],
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any],
) -> list[Tensor]:
    """Note the prediction of each group of conds: some samplers go on with the negative one."""
    predicted: list[Tensor] = executor(model, conds, x, timestep, model_options)
    drift: Drift | None = model_options["transformer_options"].get(DRIFT)
    if drift is not None:
        for one in predicted:
            drift.explain(one)
    return predicted
