"""Metrics, their intervals, resampling and calibration."""
