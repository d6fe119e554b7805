"""Simulate people that walk past cameras, to measure the tracker."""
