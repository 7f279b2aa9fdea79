"""Infinite-ID (ECCV 2024, arXiv 2403.11781): identity-preserved pictures with SDXL.

The maths lives here and needs torch alone. `infinite_id.host` talks to ComfyUI.
"""
