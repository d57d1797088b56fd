"""Engines that run the backbone of a network: torch and OpenVINO."""
