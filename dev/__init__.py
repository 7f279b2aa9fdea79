"""Developer tool: sets up a real ComfyUI with real face nets, runs the demo and the tests."""
