"""The rows of `docs/compatibility.md`, and the tests behind each.

If a feature names a parameter of its tests, each value makes a row: new values in the tests become
new rows. A row whose tests are gone is an error. Tests without a row are listed by their files.
"""

from __future__ import annotations

from dataclasses import dataclass

from .results import Feature


@dataclass(frozen=True)
class Section:
    title: str
    features: tuple[Feature, ...]


def _row(name: str, *checks: str, by: str = "", only: str = "") -> Feature:
    return Feature(name, checks, by=by, only=only)


LAYERS = "host/test_layers.py::"
STOCK = "host/test_stock_nodes.py::"
EXACT = "host/test_exactness.py::"
SAVINGS = "host/test_savings.py::"
RELATIVES = "host/test_relatives.py::"
CONTROL = "host/test_control.py::"
MORE = "host/test_more_stock.py::"

SECTIONS = (
    Section(
        "Stock model patches, before and after Apply",
        (
            _row("{}", f"{STOCK}test_model_patches", by="name"),
            _row("PAG, each mixing", f"{LAYERS}test_guidance_by_attention", only="perturb"),
            _row("SAG, each mixing", f"{LAYERS}test_guidance_by_attention", only="guide_self"),
        ),
    ),
    Section(
        "ControlNets",
        (
            _row("{}", f"{CONTROL}test_each_kind", by="name"),
            _row("types of a union net", f"{CONTROL}test_a_union_net_and_its_types"),
            _row("two at once", f"{CONTROL}test_two_at_once"),
            _row("start and end", f"{CONTROL}test_a_part_of_the_sampling"),
            _row("strength 0", f"{CONTROL}test_strength_0_is_none"),
            _row("on some prompts alone", f"{CONTROL}test_on_some_prompts_alone"),
            _row("as many hints as latents, or not", f"{CONTROL}test_as_many_hints_as_one_likes"),
            _row("with a mask", f"{CONTROL}test_with_a_mask"),
            _row("with Save Time", f"{CONTROL}test_with_savings"),
        ),
    ),
    Section(
        "Prompts",
        (
            _row("{}", f"{STOCK}test_prompts", by="prompt"),
            _row("LoRA by hooks: {}", f"{MORE}test_hooks", by="hang"),
            _row("prompts and masks in batches: {}", f"{MORE}test_as_many*", by="stack"),
            _row("areas", f"{LAYERS}test_areas_and_combined_prompts"),
            _row("areas and the person's mask", f"{LAYERS}test_a_mask_follows_the_crop_of_an_area"),
        ),
    ),
    Section(
        "Sampling",
        (
            _row("every sampler of the host", f"{EXACT}test_every_sampler"),
            _row("every scheduler of the host", f"{EXACT}test_every_scheduler"),
            _row("guider: {}", f"{LAYERS}test_guiders", by="make"),
            _row("guider: {}", f"{MORE}test_guiders", by="make"),
            _row("custom sampler: {}", f"{EXACT}test_custom_samplers", by="make"),
            _row("image to image", f"{EXACT}test_image_to_image", only="whole"),
            _row("inpainting by noise mask", f"{EXACT}test_image_to_image", only="noise-mask"),
            _row("{}", f"{STOCK}test_ways_to_sample", by="way"),
            _row("{}", f"{MORE}test_latents", by="way"),
            _row("one of a batch by its number", f"{MORE}test_one_of_a_batch_by_its_number"),
            _row("a refiner takes over", f"{MORE}test_a_refiner_takes_over"),
            _row("KSampler (Advanced)", f"{EXACT}test_ksampler_advanced_in_two_parts"),
            _row("few steps: {}", f"{RELATIVES}test_few_steps", by="sample"),
            _row("guidance 1", f"{RELATIVES}test_guidance_1_costs_two_rows"),
            _row("previews of latents", f"{MORE}test_previews"),
            _row("previews and x0", f"{EXACT}test_previews_and_x0_show_the_identity_stream"),
            _row("context windows", f"{SAVINGS}test_context_windows"),
            _row(
                "nodes that cut the batch, with shared latents",
                f"{SAVINGS}test_a_node_that_cuts_the_batch_works_with_shared_latents",
            ),
        ),
    ),
    Section(
        "SDXL and its relatives",
        (
            _row("SDXL adapters on {}", f"{RELATIVES}test_sdxl_adapters_fit", by="name"),
            _row("{} with an adapter of its own", f"{RELATIVES}test_with_an_adapter*", by="name"),
            _row("inpaint and edit models", f"{RELATIVES}test_both_streams_read_the_picture"),
            _row("guided by text and picture", f"{RELATIVES}test_guided_by_text_and_picture"),
        ),
    ),
    Section(
        "Adapters",
        (
            _row("{}", "host/test_adapters.py::test_unet_output", by="case"),
            _row("FaceID's LoRA", "host/test_adapters.py::test_lora_*"),
            _row("native: agrees with an independent reference", "host/test_reference.py::*"),
        ),
    ),
    Section(
        "Other packs, by stand-ins",
        (
            _row("{} replaced", f"{LAYERS}test_a_foreign_replacement_is_still_called", by="kind"),
            _row("attn2 added to", f"{LAYERS}test_image_attention_is_added_around_a_foreign_attn2"),
        ),
    ),
    Section(
        "The pack's own",
        (
            _row(
                "masks",
                f"{LAYERS}test_*mask*",
                "host/test_precision.py::test_*mask*",
                "host/test_people.py::*",
            ),
            _row("sweeps", "host/test_sweeps.py::*"),
            _row("Save Time", f"{SAVINGS}*"),
            _row("Encode Identity", "host/test_encode.py::*"),
            _row("identity files", "host/test_identity_files.py::*"),
            _row("identity files through a server", "server/test_identity_files.py::*"),
            _row("face masks, crops and pasting", "host/test_face_nodes.py::*"),
            _row("workflow {}", "server/test_workflows.py::test_workflow_runs", by="path"),
        ),
    ),
    Section(
        "When something goes wrong",
        (
            _row("nothing is left: {}", "host/test_exceptions.py::test_nothing_is_left", by="seam"),
            _row("any widgets, sizes and shapes: an error or a picture", "host/test_fuzz.py::*"),
        ),
    ),
    Section(
        "Devices and precision",
        (
            _row("{}", "host/test_precision.py::test_dtypes", by="dtype"),
            _row("torch.compile", f"{MORE}test_compiled"),
            _row("several GPUs: MultiGPU CFG Split", "host/test_several_gpus.py::*"),
            _row("memory modes of the host", "host/test_adapters.py::test_memory_modes"),
            _row("true size on a fake GPU: devices, dtypes, no sync", "host/test_fake_cuda.py::*"),
        ),
    ),
)

REFUSALS = (
    Feature("{}", (f"{RELATIVES}test_sdxl_adapters_are_refused_elsewhere",), by="name"),
    Feature("", ("host/test_refusals.py::*",)),
    Feature("", ("server/test_server.py::test_bad_input",)),
)
"""Features whose messages are shown. Those without a title are named by their tests."""


@dataclass(frozen=True)
class Limit:
    """A known limit, its reason, and the tests that show it."""

    what: str
    why: str
    feature: Feature


LIMITS = (
    Limit(
        "Token merging",
        "Changes nothing: it acts at the latent's full resolution, where SDXL has no attention.",
        _row("", "host/test_limits.py::test_token_merging_does_nothing"),
    ),
    Limit(
        "Sweeps with shared latents",
        "Refused: a sweep has a text row of its own.",
        _row("", f"{SAVINGS}test_a_sweep_cannot_share_its_latents"),
    ),
    Limit(
        "Nodes that cut the batch, without shared latents",
        "Refused: two streams are one batch, which such nodes tear apart.",
        _row("", f"{LAYERS}test_a_node_that_cuts_the_batch_is_told"),
    ),
    Limit(
        "Nodes with attention blocks of their own, such as Reference ControlNets",
        "Refused in the first step: they cut the batch within a block, unseen by other nodes.",
        _row("", "host/test_limits.py::test_attention_blocks_of_another_node"),
    ),
)
