"""Fitting V and M to episodes, and encoding frames to latents."""
