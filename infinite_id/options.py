"""Options that several commands have."""

from __future__ import annotations

import argparse


def add_face_net_options(parser: argparse._ActionsContainer) -> None:
    """Where face nets run, and how they look for faces."""
    parser.add_argument(
        "--provider", default="auto", help="where the face nets run: auto, CUDA, CPU ..."
    )
    parser.add_argument(
        "--detection-size",
        type=int,
        default=640,
        metavar="N",
        help="side in pixels to which pictures are scaled for detection; default: 640",
    )
